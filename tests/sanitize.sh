#!/usr/bin/env bash
# Runs the tests of the kernels and of the fused encoders under AddressSanitizer, on every instruction set that this
# processor has (some minutes), and those of the kernels under Miri, portable code only, where a nightly toolchain has
# it (an hour or two on one core; a name selects tests that contain it).
#
#     tests/sanitize.sh [NAME]
set -euo pipefail
cd "$(dirname "$0")/.."
target="$(rustc -vV | sed -n 's/^host: //p')"
folder="${CARGO_TARGET_DIR:-target}/sanitize"

# The sanitizer's runtime comes with stable Rust; only the flag that asks for it is unstable.
RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR="$folder" \
    cargo test --release --no-default-features --target "$target" --test kernels --test fused -- "$@"

if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "skipped: no nightly toolchain with Miri (rustup toolchain install nightly --component miri)"
    exit
fi
# On a nightly compiler dfdx turns on features that today's no longer has: a copy of it does not.
cargo fetch
dfdx="$(cargo metadata --format-version 1 | grep -o '"[^"]*/dfdx-0[^"/]*/Cargo.toml"' | head -1 | tr -d '"')"
mkdir -p "$folder"
rm -rf "$folder/dfdx"
cp -r "$(dirname "$dfdx")" "$folder/dfdx"
sed -i 's/^    maybe_enable_nightly();/    let _ = maybe_enable_nightly as fn();/' "$folder/dfdx/build.rs"
# The copy must not stay in the lock file.
cp Cargo.lock "$folder/Cargo.lock"
trap 'cp "$folder/Cargo.lock" Cargo.lock' EXIT
# Without the second flag, Miri changes last digits of logarithms at random, and tests compare bits.
MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-deterministic-floats" FLIP_ISA=portable \
    cargo +nightly miri test --config "patch.crates-io.dfdx.path=\"$(realpath "$folder/dfdx")\"" \
    --no-default-features --target-dir "$folder/miri" --test kernels -- "$@"
