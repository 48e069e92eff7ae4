#!/bin/sh
# Builds every example's .wasm from its source, reproducibly: same compiler (1.95.0), no paths, no debug information.
set -eu
cd "$(dirname "$0")"
build() {
    source=$1
    shift
    rustc --edition 2024 --target wasm32-wasip1 -C opt-level=s -C lto -C codegen-units=1 -C panic=abort -C strip=symbols \
        --remap-path-prefix "$PWD=." "$@" -o "${source%.rs}.wasm" "$source"
}
for source in hello/*.rs fleet/*.rs weather/*.rs penguins/*.rs montecarlo/*.rs trials/trial.rs trials/dynamic.rs; do
    build "$source"
done
build trials/library.rs --crate-type cdylib
# A component. Its bindings come with their paths.
target=$(mktemp -d)
trap 'rm -rf "$target"' EXIT
RUSTFLAGS="--remap-path-prefix ${CARGO_HOME:-$HOME/.cargo}=cargo --remap-path-prefix $PWD=." CARGO_TARGET_DIR=$target \
    cargo build --quiet --locked --release --target wasm32-wasip2 --manifest-path trials/fetch/Cargo.toml
cp "$target/wasm32-wasip2/release/fetch.wasm" trials/fetch.wasm
sha256sum */*.wasm
