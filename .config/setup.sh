#!/bin/sh
# Installs what the build needs beside Rust: a C++ compiler and libclang, for RocksDB. Safe to run again.
set -eu

say() { echo "setup: $*" >&2; }

if ! command -v cargo >/dev/null 2>&1; then
    say "cargo is missing; install Rust with rustup first"
    exit 1
fi

missing=""
command -v clang++ >/dev/null 2>&1 || missing="$missing clang"
[ -n "$(find /usr/lib /usr/lib64 /usr/local/lib /Library/Developer /opt/homebrew/opt/llvm -name 'libclang*.so*' -o -name 'libclang.dylib' 2>/dev/null | head -n 1)" ] ||
    missing="$missing libclang-dev"
[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    say "please install with your system's package manager:$missing"
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1; then
    as_root="sudo"
else
    say "these packages are missing:$missing; installing them needs root, and there is no sudo"
    exit 1
fi
say "installing$missing"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
$as_root apt-get install -y -qq $missing >/dev/null
