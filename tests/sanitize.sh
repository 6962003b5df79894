#!/usr/bin/env bash
# Runs the tests of the kernels and of the fused encoders under AddressSanitizer, on every instruction set that
# this processor has, and under Miri (portable code only) where the toolchain has it. Takes some minutes.
#
#     tests/sanitize.sh
set -euo pipefail
cd "$(dirname "$0")/.."
target="$(rustc -vV | sed -n 's/^host: //p')"

# The sanitizer's runtime comes with stable Rust; only the flag that asks for it is unstable.
export RUSTC_BOOTSTRAP=1
RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/sanitize" \
    cargo test --release --target "$target" --test kernels --test fused

if cargo miri --version >/dev/null 2>&1; then
    MIRIFLAGS="-Zmiri-disable-isolation" FLIP_ISA=portable cargo miri test --test kernels
else
    echo "skipped: Miri is not part of this toolchain"
fi
