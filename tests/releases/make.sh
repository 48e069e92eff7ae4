#!/bin/sh
# Makes what is kept of a release for the tests of those after it: a data folder in which something of everything lies, as
# VERSION.tar.gz, and what the release itself told of it, as VERSION.json. Once for each release, with its own programs:
#
#   tests/releases/make.sh path/to/bacnode
set -eu

bacnode=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
trial=$here/../../examples/trials/trial.wasm
work=$(mktemp -d)
trap 'kill "$node" 2>/dev/null; rm -rf "$work"' EXIT
version=$("$bacnode" --version | sed 's/.* //')

"$bacnode" serve --network test --name kept --data-dir "$work/data" --api 127.0.0.1:0 --listen /ip4/127.0.0.1/tcp/0 \
    --ready-file "$work/ready" --label zone=eu 2>"$work/log" &
node=$!
until [ -s "$work/ready" ]; do sleep 0.1; done
BACNODE_API=$(sed -n 's/.*"Api": *"\([^"]*\)".*/\1/p' "$work/ready")
export BACNODE_API

run() { "$bacnode" wasm run --id-only "$@" >/dev/null; }
mkdir -p "$work/folder/deep"
seq 1 20000 >"$work/folder/numbers.txt"
echo text >"$work/folder/deep/small.txt"
folder=$("$bacnode" content add "$work/folder" --output json | sed -n 's/.*"Cid": *"\([^"]*\)".*/\1/p')
"$bacnode" content add --private "$here/make.sh" >/dev/null 2>&1
run --name twice "$trial" -- print 4096
run --name twice --label team=data "$trial" -- print 8192
run --name parts --count 3 -e KEY=value "$trial" -- env
run --name reads -i "ipfs://$folder:/data" --result out:/outputs "$trial" -- write 80000
run --name fails "$trial" -- exit 7 || true
run --name everywhere --type ops --constraints zone=eu "$trial" -- print 1024
run --name nowhere --constraints zone=mars "$trial" -- print 1024 || true
run --name stopped --no-wait "$trial" -- sleep 600000
"$bacnode" job stop stopped 2>/dev/null
run --name service --type service --count 2 "$trial" -- sleep 86400000
run --name service --type service --count 2 -e VERSION=2 "$trial" -- sleep 86400000
"$bacnode" token create --data-dir "$work/data" ci >/dev/null 2>&1
"$bacnode" node drain 2>/dev/null
"$bacnode" node drain --undo 2>/dev/null

for job in $("$bacnode" job list --limit 100 --output csv | sed -n 's/^\(j-[^,]*\),.*/\1/p'); do
    "$bacnode" job describe "$job" --output json
done >"$work/told"
kill "$node"
wait "$node" || true
rm -f "$here/$version.tar.gz"
"$bacnode" backup --data-dir "$work/data" "$here/$version.tar.gz"
# One job a line.
python3 - "$work/told" >"$here/$version.json" <<'PYTHON'
import json, sys
text, at, decoder = open(sys.argv[1]).read(), 0, json.JSONDecoder()
while text[at:].strip():
    job, end = decoder.raw_decode(text[at:].lstrip())
    at += len(text[at:]) - len(text[at:].lstrip()) + end
    print(json.dumps(job))
PYTHON
ls -l "$here/$version".*
