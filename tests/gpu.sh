#!/usr/bin/env bash
# Builds, checks and times everything on a machine with an NVIDIA GPU, in one go, and ends with one short table. What
# fails is told there, and the rest goes on. Some minutes; needs Rust, nvcc and the CUDA libraries.
#
#     tests/gpu.sh [LOG]           # LOG: everything that was said [default: target/gpu.log]
#
# With FLIP_PEER, a command that times the same step in PyTorch, its numbers stand beside ours. It is given
# --device cuda --precision bf16 --model MODEL --mask MASK --batch N --json and prints, last, one line of JSON with
# images_per_s and peak_mib, for example FLIP_PEER="python torch_flip_step.py --compile --embed-kept-only".
# FLIP_BATCH: pairs of a step [default: 256]. FLIP_SIZES: models that are timed [default: b16 l16 h14]. The composed graph,
# in 32 bits, is timed at one mask.
set -uo pipefail
cd "$(dirname "$0")/.."
log="${1:-target/gpu.log}"
mkdir -p "$(dirname "$log")" && : > "$log"
table=""

row() { table+="$(printf '%-44s %s' "$1" "$2")"$'\n'; }

# step NAME COMMAND...: runs it; its name and outcome become a row.
step() {
    local name="$1" from=$SECONDS outcome
    shift
    echo "== $name: $*" | tee -a "$log"
    if "$@" >> "$log" 2>&1; then outcome="ok"; else outcome="FAILED, see $log"; failed=1; fi
    row "$name" "$outcome ($((SECONDS - from)) s)"
    [ "$outcome" = ok ]
}

# field NAME JSON: a number or a string.
field() { sed -nE "s/.*\"$1\":\"?([^,\"}]*).*/\1/p" <<< "$2"; }

failed=0
row "GPU" "$(nvidia-smi --query-gpu=name,compute_cap,driver_version --format=csv,noheader 2>&1 | head -n 1)"
if step "build" cargo build --release --features cuda --bins --example measure_cuda; then
    step "kernels against their references" \
        cargo test --release --features cuda --test cuda -- --nocapture
    step "both against the fixtures" \
        cargo test --release --features cuda --test fixtures -- --nocapture on_a_gpu
    step "fused steps against the processor" \
        cargo test --release --features cuda --test fused -- --nocapture on_a_gpu
    # A test that found no GPU passes as well: here that is a failure.
    if grep -qE '^skipped( on a GPU)?: ' "$log"; then
        row "tests that found no GPU" "FAILED: $(grep -m 1 -E '^skipped( on a GPU)?: ' "$log")"
        failed=1
    fi
    if command -v compute-sanitizer > /dev/null; then
        binary="$(cargo test --release --features cuda --test cuda --no-run 2>&1 | sed -nE 's/.*\((.*)\)$/\1/p' | tail -n 1)"
        for tool in memcheck racecheck initcheck; do
            step "compute-sanitizer, $tool" compute-sanitizer --tool "$tool" --error-exitcode 9 "$binary" --skip no_kernel_spills
        done
    else
        row "compute-sanitizer" "skipped: it is not on the PATH"
    fi
    folder="$(mktemp -d)"
    for how in "Reference F32" "Fused Bf16"; do
        read -r compute precision <<< "$how"
        if step "quickstart, $compute, on the GPU" target/release/flip run recipes/quickstart.ron \
            --out "$folder/$compute" --set "device=Cuda(0)" --set "compute=$compute" --set "precision=$precision"; then
            row "  top-1 at the end" "$(grep -oE '"top1": *[0-9.]+' "$folder/$compute/eval.json" | tail -n 1)"
        fi
    done
    rm -rf "$folder"
    if kernels="$(cargo run -q --release --features cuda --example measure_cuda 2>> "$log")"; then
        while IFS= read -r line; do row "  kernel" "$line"; done <<< "$kernels"
    else
        row "kernels, timed" "FAILED, see $log"
        failed=1
    fi
    batch="${FLIP_BATCH:-256}"
    # timed NAME COMMAND...: a row of what a step takes; the last line of the command is JSON.
    timed() {
        local name="$1" json
        shift
        if json="$("$@" 2>> "$log" | tail -n 1)" && [ -n "$json" ]; then
            row "$name" "$(printf '%8.1f images/s %9.1f ms %8.0f GFLOP/s of %.0f, %.0f MiB' \
                "$(field images_per_s "$json")" "$(field ms_step "$json")" "$(field gflop_per_s "$json")" \
                "$(field gemm_gflop_per_s "$json")" "$(field peak_mib "$json")")"
        else
            row "$name" "FAILED, see $log"
            failed=1
        fi
    }
    for size in ${FLIP_SIZES:-b16 l16 h14}; do
        for mask in 0 0.5 0.75; do
            for how in "fused bf16 $batch" "reference f32 64"; do
                read -r compute precision pairs <<< "$how"
                [ "$compute $mask" = "reference 0" ] || [ "$compute $mask" = "reference 0.75" ] && continue
                timed "$size, mask $mask, $compute, $precision, $pairs" target/release/flip bench \
                    "recipes/bench/$size.ron" --device cuda --compute "$compute" --precision "$precision" \
                    --batch "$pairs" --mask "$mask" --json
            done
            if [ -n "${FLIP_PEER:-}" ]; then
                # shellcheck disable=SC2086 # A command with its arguments.
                timed "$size, mask $mask, FLIP_PEER, bf16, $batch" $FLIP_PEER --device cuda --precision bf16 \
                    --model "$size" --mask "$mask" --batch "$batch" --json
            fi
        done
    done
fi
echo
printf '%s' "$table" | tee -a "$log"
exit $failed
