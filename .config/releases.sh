#!/bin/sh
# Builds the programs of releases before this one, from this repository's history, for the tests of old and new nodes
# together: once each (about five minutes), kept in a cache. Where one cannot be had it says so, and the tests say that they
# did not run.
set -eu

say() { echo "setup: $*" >&2; }
dir=${BACNODE_RELEASES:-$HOME/.cache/bacnode/releases}
target=${CARGO_TARGET_DIR:-$HOME/.cache/bacnode/target}
here=$(git rev-parse --show-toplevel 2>/dev/null) || { say "there is no history: releases before this one are not tried"; exit 0; }

grep -v '^#' tests/releases/commits | while read -r version commit; do
    [ -x "$dir/$commit/bacnode" ] && continue
    if ! git -C "$here" cat-file -e "$commit^{commit}" 2>/dev/null; then
        say "$version ($commit) is not in this copy's history: it is not tried"
        continue
    fi
    say "building $version"
    work=$(mktemp -d)
    git -C "$here" archive "$commit" | tar -x -C "$work"
    # Among what is built already: only the programs themselves are built anew. The next build puts this tree's back.
    if (cd "$work" && CARGO_TARGET_DIR=$target cargo build --quiet --bin bacnode); then
        mkdir -p "$dir/$commit"
        strip -o "$dir/$commit/bacnode" "$target/debug/bacnode" 2>/dev/null || cp "$target/debug/bacnode" "$dir/$commit/bacnode"
    else
        say "$version cannot be built: it is not tried"
    fi
    rm -rf "$work"
done
