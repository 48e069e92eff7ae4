#!/bin/sh
# Builds every example's .wasm from its source, reproducibly: same compiler (1.95.0), no paths, no debug information.
set -eu
cd "$(dirname "$0")"
for source in hello/*.rs weather/*.rs penguins/*.rs montecarlo/*.rs trials/*.rs; do
    rustc --edition 2024 --target wasm32-wasip1 -C opt-level=s -C lto -C codegen-units=1 -C panic=abort -C strip=symbols \
        --remap-path-prefix "$PWD=." -o "${source%.rs}.wasm" "$source"
done
sha256sum */*.wasm
