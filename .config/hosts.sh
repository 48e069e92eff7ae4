#!/bin/sh
# Gets what tests of several hosts on one machine need: network namespaces and packet filters. Safe to run again. Where it
# cannot be had the tests say that they did not run.
set -eu

say() { echo "setup: $*" >&2; }
missing=""
command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
command -v nft >/dev/null 2>&1 || [ -x /usr/sbin/nft ] || missing="$missing nftables"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "installing$missing"
    # shellcheck disable=SC2086 # a list of packages
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >/dev/null ||
        say "$missing cannot be had: machines behind routers are not tried"
else
    say "$missing is not installed: machines behind routers are not tried"
fi
