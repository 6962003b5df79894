#!/usr/bin/env bash
# Builds, checks and times everything on a machine with an NVIDIA GPU, in one go, and ends with one short table. What
# fails is told there, and the rest goes on. Some minutes; needs Rust, nvcc and the CUDA libraries.
#
#     tests/gpu.sh [LOG]           # LOG: everything that was said [default: target/gpu.log]
#
# With FLIP_PEER, a command that times the same step in PyTorch, its numbers stand beside ours, and what we are to it: at
# least 1.2 times the images a second and at most 0.7 times the memory, or the row says so. It is given --device cuda
# --precision bf16 --model MODEL --mask MASK --batch N --json and prints, last, one line of JSON with images_per_s and
# peak_mib, for example FLIP_PEER="python torch_flip_step.py --compile --embed-kept-only".
#
# FLIP_ONLY: which parts, where time is scarce [default: tests bench runs sanitizer].
# FLIP_BATCH: pairs of a step [default: 256]; where there is no room, half as many are tried, and a quarter.
# FLIP_SIZES, FLIP_MASKS: what is timed [default: b16 l16 h14, 0 0.5 0.75]. The composed graph, in 32 bits, is timed at
# one mask.
# FLIP_PICTOGRAMS: a folder with the shards of recipes/pictograms.ron [default: data/pictograms].
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
log="${1:-target/gpu.log}"
mkdir -p "$(dirname "$log")" && : > "$log"
table=""
failed=0

row() { table+="$(printf '%-44s %s' "$1" "$2")"$'\n'; }

# fail NAME WHY: a row that makes the whole a failure.
fail() {
    row "$1" "FAILED: $2"
    failed=1
}

# step NAME COMMAND...: runs it; its name and outcome become a row.
step() {
    local name="$1" from=$SECONDS outcome
    shift
    echo "== $name: $*" | tee -a "$log"
    if "$@" >> "$log" 2>&1; then outcome="ok"; else outcome="FAILED, see $log"; failed=1; fi
    row "$name" "$outcome ($((SECONDS - from)) s)"
    [ "$outcome" = ok ]
}

# wanted PART: whether it is among FLIP_ONLY.
wanted() { [[ " ${FLIP_ONLY:-tests bench runs sanitizer} " == *" $1 "* ]]; }

# field NAME JSON: a number or a string.
field() { sed -nE "s/.*\"$1\":[[:space:]]*\"?([^,\"}]*).*/\1/p" <<< "$2"; }

# holds EXPRESSION: whether awk finds it true.
holds() { awk "BEGIN { exit !($1) }"; }

# top1 TASK FILE: the last top-1 of a zero-shot task in eval.json.
top1() {
    awk -v task="$1" '/^    "task": / { of = index($0, "\"" task "\"") } of && /^      "top1": / { last = $2 + 0 } END { print last }' "$2"
}

tests() {
    step "kernels against their references" cargo test --release --features cuda --test cuda -- --nocapture
    step "both against the fixtures" \
        cargo test --release --features cuda --test fixtures -- --nocapture on_a_gpu
    step "fused steps against the processor" \
        cargo test --release --features cuda --test fused -- --nocapture on_a_gpu
    # A test that found no GPU passes as well: here that is a failure.
    if grep -qE '^skipped( on a GPU)?: ' "$log"; then
        fail "tests that found no GPU" "$(grep -m 1 -E '^skipped( on a GPU)?: ' "$log")"
    fi
}

# built TEST: the binary of a test.
built() {
    cargo test --release --features cuda --test "$1" --no-run 2>&1 | sed -nE 's/.*\((.*)\)$/\1/p' | tail -n 1
}

sanitizer() {
    if ! command -v compute-sanitizer > /dev/null; then
        row "compute-sanitizer" "skipped: it is not on the PATH"
        return
    fi
    local kernels steps tool
    kernels="$(built cuda)"
    steps="$(built fused)"
    for tool in memcheck racecheck initcheck synccheck; do
        step "compute-sanitizer, $tool, kernels" \
            compute-sanitizer --tool "$tool" --error-exitcode 9 "$kernels" --skip no_kernel_spills
    done
    step "compute-sanitizer, memcheck, fused steps" \
        compute-sanitizer --tool memcheck --error-exitcode 9 "$steps" on_a_gpu
}

# run NAME RECIPE COMPUTE PRECISION [SET]...: a whole run on the GPU, in $folder/NAME.
run() {
    local name="$1" recipe="$2" compute="$3" precision="$4"
    shift 4
    step "$name, $compute, on the GPU" target/release/flip run "recipes/$recipe.ron" --out "$folder/$name-$compute" \
        --set "device=Cuda(0)" --set "compute=$compute" --set "precision=$precision" "$@"
}

# reaches NAME-COMPUTE TASK LEAST: a row of the top-1 that a run ends with, which is to be what processors reach.
reaches() {
    local got
    got="$(top1 "$2" "$folder/$1/eval.json")"
    if holds "${got:-0} >= $3"; then
        row "  top-1, $2" "$got (at least $3)"
    else
        fail "  top-1, $2" "${got:-none}, at least $3"
    fi
}

# Seeds 0 to 2 on processors end at 0.909 to 0.922; with 2,000 images, three standard errors are 0.019. The pictograms
# end at 0.347 to 0.407 and 0.123 to 0.132 of 479 images, the standard error of which is 0.022 and 0.015.
runs() {
    local how compute precision folder shards
    folder="$(mktemp -d)"
    for how in "Fused Bf16" "Reference F32"; do
        read -r compute precision <<< "$how"
        if run quickstart quickstart "$compute" "$precision"; then
            reaches "quickstart-$compute" "source classes" 0.89
        fi
    done
    shards="${FLIP_PICTOGRAMS:-data/pictograms}"
    if [ -f "$shards/pictograms-00004.tar" ]; then
        if run pictograms pictograms Fused Bf16 \
            --set "data.train.shards=$shards/pictograms-{00000..00004}.tar" \
            --set "data.validation.shards=$shards/pictograms-val-00000.tar"; then
            reaches pictograms-Fused group 0.325
            reaches pictograms-Fused subgroup 0.105
        fi
    else
        row "pictograms, on the GPU" "skipped: no shards in $shards; FLIP_PICTOGRAMS names their folder"
    fi
    rm -rf "$folder"
}

# timed NAME COMMAND...: a row of what a step takes; the last line of the command, one of JSON, is left in $json.
timed() {
    local name="$1"
    shift
    echo "== $name: $*" | tee -a "$log"
    json="$("$@" 2>> "$log" | tail -n 1)"
    echo "$json" >> "$log"
    [ -n "$(field images_per_s "$json")" ] || return 1
    local share
    share="$(field share_of_gemm "$json")"
    row "$name" "$(printf '%8.1f images/s %9.2f ms %8.1f TFLOP/s %8.0f MiB' "$(field images_per_s "$json")" \
        "$(field ms_step "$json")" "$(awk "BEGIN { print $(field gflop_per_s "$json") / 1e3 }")" "$(field peak_mib "$json")")${share:+$(
            awk "BEGIN { printf \" %3.0f %% of a bare product\", 100 * $share }"
        )}"
}

# cell SIZE MASK: the fused encoders beside the peer, with as many pairs as there is room for.
cell() {
    local size="$1" mask="$2" pairs ours="" json peer
    for pairs in "$batch" "$((batch / 2))" "$((batch / 4))"; do
        if timed "$size, mask $mask, Fused, Bf16, $pairs" target/release/flip bench "recipes/bench/$size.ron" \
            --device cuda --compute Fused --precision Bf16 --batch "$pairs" --mask "$mask" --json; then
            ours="$json"
            break
        fi
    done
    if [ -z "$ours" ]; then
        fail "$size, mask $mask, Fused, Bf16" "see $log"
        return
    fi
    row "  ms by events" "$(sed -nE 's/.*"phases_ms":\{([^}]*)\}.*/\1/p' <<< "$ours" | tr -d '"' | sed -E 's/([0-9]\.[0-9]{2})[0-9]*/\1/g')"
    if [ "$size $mask" = "$profiled" ]; then
        while IFS= read -r kernel; do
            row "  $(field kernel "$kernel")" "$(printf '%9.3f ms %8.0f GB/s %s' \
                "$(field ms "$kernel")" "$(field gb_per_s "$kernel")" "$(field tflop_per_s "$kernel")")"
        done <<< "$(grep -oE '\{"kernel":[^}]*\}' <<< "$ours")"
    fi
    if [ "$size" != b16 ] && ! holds "$(field share_of_gemm "$ours") >= 0.5"; then
        fail "  share of a bare product" "$(field share_of_gemm "$ours"), at least 0.5"
    fi
    [ -n "${FLIP_PEER:-}" ] || return 0
    # shellcheck disable=SC2086 # A command with its arguments.
    if ! timed "$size, mask $mask, FLIP_PEER, bf16, $pairs" $FLIP_PEER --device cuda --precision bf16 --model "$size" \
        --mask "$mask" --batch "$pairs" --json; then
        fail "$size, mask $mask, FLIP_PEER" "see $log"
        return
    fi
    peer="$json"
    local speed memory
    speed="$(awk "BEGIN { printf \"%.2f\", $(field images_per_s "$ours") / $(field images_per_s "$peer") }")"
    memory="$(awk "BEGIN { printf \"%.2f\", $(field peak_mib "$ours") / $(field peak_mib "$peer") }")"
    if holds "$speed >= 1.2 && $memory <= 0.7"; then
        row "  to FLIP_PEER" "$speed times the images/s, $memory times the memory"
    else
        fail "  to FLIP_PEER" "$speed times the images/s (at least 1.2), $memory times the memory (at most 0.7)"
    fi
}

bench() {
    local batch="${FLIP_BATCH:-256}" sizes="${FLIP_SIZES:-b16 l16 h14}" masks="${FLIP_MASKS:-0 0.5 0.75}"
    local size mask profiled="l16 0.5" json
    for size in $sizes; do
        for mask in $masks; do
            cell "$size" "$mask"
        done
        timed "$size, mask 0.5, Reference, F32, 64" target/release/flip bench "recipes/bench/$size.ron" --device cuda \
            --compute Reference --precision F32 --batch 64 --mask 0.5 --json \
            || fail "$size, mask 0.5, Reference, F32, 64" "see $log"
    done
}

row "GPU" "$(nvidia-smi --query-gpu=name,compute_cap,driver_version --format=csv,noheader 2>&1 | head -n 1)"
if step "build" cargo build --release --features cuda --bins; then
    if wanted tests; then tests; fi
    if wanted bench; then bench; fi
    if wanted runs; then runs; fi
    if wanted sanitizer; then sanitizer; fi
fi
echo
printf '%s' "$table" | tee -a "$log"
exit $failed
