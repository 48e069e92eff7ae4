#!/bin/sh
# Gets a Docker daemon and two images for the tests: busybox alone, and a small Debian with Python. Safe to run again. Where a daemon cannot be had it says so, and
# the tests that need one say that they did not run.
set -eu

say() { echo "setup: $*" >&2; }
image=bacnode-test/busybox:1
python=bacnode-test/python:1

if ! docker info >/dev/null 2>&1; then
    if [ "$(id -u)" != 0 ]; then
        say "there is no Docker daemon for this user, and starting one needs root: container tests do not run"
        exit 0
    fi
    if ! command -v dockerd >/dev/null 2>&1; then
        if ! command -v apt-get >/dev/null 2>&1; then
            say "please install Docker with your system's package manager: container tests do not run"
            exit 0
        fi
        say "installing docker.io"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        apt-get install -y -qq docker.io >/dev/null
    fi
    say "starting dockerd"
    log=${TMPDIR:-/tmp}/bacnode-dockerd.log
    setsid dockerd >"$log" 2>&1 </dev/null &
    tries=0
    until docker info >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -gt 60 ]; then
            say "dockerd does not come up (see $log): container tests do not run"
            exit 0
        fi
        sleep 0.5
    done
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

if ! docker image inspect "$python" >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        command -v debootstrap >/dev/null 2>&1 || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq debootstrap >/dev/null; }
        say "making the image $python"
        if debootstrap --variant=minbase --include=python3-minimal --exclude=apt,e2fsprogs,login,passwd bookworm "$root/debian" >"$root/log" 2>&1; then
            rm -rf "$root"/debian/var/cache/apt "$root"/debian/var/lib/apt "$root"/debian/usr/share/doc "$root"/debian/usr/share/locale
            tar -C "$root/debian" -c . | docker import -c 'CMD ["/usr/bin/python3"]' -c 'ENV PATH=/usr/bin:/bin' - "$python" >/dev/null
        else
            say "Debian's packages cannot be had: Python does not run in containers"
        fi
    else
        say "making an image with Python needs root and Debian: Python does not run in containers"
    fi
fi

docker image inspect "$image" >/dev/null 2>&1 && exit 0
busybox=$(command -v busybox || true)
if [ -z "$busybox" ] || ! "$busybox" 2>/dev/null | head -n 1 | grep -q BusyBox; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing busybox-static"
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq busybox-static >/dev/null
        busybox=$(command -v busybox)
    else
        say "please install a static busybox: container tests do not run"
        exit 0
    fi
fi
say "making the image $image"
rm -rf "$root"
mkdir -p "$root/bin" "$root/etc" "$root/tmp"
cp "$busybox" "$root/bin/busybox"
"$busybox" --list | grep -vx busybox | while read -r name; do ln -s busybox "$root/bin/$name"; done
tar -C "$root" -c . | docker import -c 'CMD ["/bin/sh"]' -c 'ENV PATH=/bin' - "$image" >/dev/null
