#!/bin/sh
# A fleet of eight nodes on this machine, each with logs of its own. One job boils all of them down where they lie; then the
# bytes that moved are set beside those that bringing the logs together would have moved.
#
#   examples/fleet/run.sh [LINES]        # of each node's log; 200000 without
set -eu
lines=${1:-200000}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
pids=""
trap 'kill $pids 2>/dev/null || true; wait || true; rm -rf "$work"' EXIT

say() { echo "$*" >&2; }
until_there() { for _ in $(seq 300); do [ -e "$1" ] && return; sleep 0.1; done; say "$1 does not appear"; exit 1; }

say "writing eight logs of $lines lines"
for n in 1 2 3 4 5 6 7 8; do
    mkdir -p "$work/web-$n/logs"
    awk -v seed="$n" -v lines="$lines" 'BEGIN {
        srand(seed)
        split("/ /login /search /items /items/new /cart /pay /static/app.js /static/app.css /health", paths, " ")
        for (i = 0; i < lines; i++) {
            status = rand() < 0.01 ? 500 : rand() < 0.05 ? 404 : 200
            printf "2026-11-23T%02d:%02d:%02dZ GET %s %d %d %d\n", i / 3600 % 24, i / 60 % 60, i % 60,
                paths[1 + int(rand() * 10)], status, 200 + int(rand() * 20000), 1 + int(-40 * log(1 - rand()))
        }
    }' >"$work/web-$n/logs/access.log"
done

say "starting nine nodes"
start() {
    name=$1
    shift
    bacnode serve --network fleet --name "$name" --data-dir "$work/$name/data" --listen /ip4/127.0.0.1/tcp/0 --api 127.0.0.1:0 \
        --no-docker --ready-file "$work/$name/ready.json" "$@" >"$work/$name/log" 2>&1 &
    pids="$pids $!"
}
field() { sed -n "s/.*\"$1\": *\\[*\"\\([^\"]*\\)\".*/\\1/p" "$work/office/ready.json"; }
mkdir -p "$work/office"
start office --no-compute
until_there "$work/office/ready.json"
address=$(tr -d '\n' <"$work/office/ready.json" | sed 's/.*"Addresses": *\[ *"\([^"]*\)".*/\1/')
BACNODE_API=$(field Api)
export BACNODE_API
for n in 1 2 3 4 5 6 7 8; do
    start "web-$n" --bootstrap "$address" --label role=web --allow-local "/logs=$work/web-$n/logs"
done
for n in 1 2 3 4 5 6 7 8; do until_there "$work/web-$n/ready.json"; done
for _ in $(seq 100); do [ "$(bacnode node list --labels role=web --output csv | wc -l)" = 9 ] && break; sleep 0.1; done

say "one job for all of them"
bacnode submit "$here/job.yaml" --download "$work/tables" >/dev/null

echo "path,requests,errors"
cat "$work"/tables/*/outputs/paths.csv | awk -F, '$1 != "path" { requests[$1] += $2; errors[$1] += $3 }
    END { for (path in requests) printf "%s,%d,%d\n", path, requests[path], errors[path] }' | sort

logs=$(cat "$work"/web-*/logs/* | wc -c)
module=$(wc -c <"$here/boil.wasm")
results=$(cat "$work"/tables/*/*/* "$work"/tables/*/stdout "$work"/tables/*/stderr "$work"/tables/*/exitCode | wc -c)
moved=$((8 * module + results))
echo
echo "$logs bytes of logs lie on eight nodes: so many would have to move to be brought together"
echo "$moved bytes moved: the program to each node, a table back from each"
awk -v logs="$logs" -v moved="$moved" 'BEGIN { printf "%.0f times less\n", logs / moved }'
