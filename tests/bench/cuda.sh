#!/usr/bin/env bash
# What a GPU is asked for, in one run of at most 8 minutes: doctor, the parity tests, and the bench with the embedded model and
# a random Llama of 1 B in bf16: operations one by one, as functions and compiled by XLA. Results go to a folder, one file a part.
#
#   tests/bench/cuda.sh OUT [PYTHON]     PYTHON has torch, transformers, peft and trl; without it only ours is timed
#   DEVICE=cpu tests/bench/cuda.sh OUT   the same path on the CPU library, smaller, to try the script
#
# Before: npm ci && npx musc native --cuda. A part that fails or takes too long is told, and the others go on.
set -uo pipefail
out=${1:?usage: tests/bench/cuda.sh OUT [PYTHON]}
python=${2:-none}
device=${DEVICE:-cuda}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/../.."
failed=0
part() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2
  shift 2
  SECONDS=0
  timeout "$limit" "$@" >"$out/$name.log" 2>&1
  local code=$?
  echo "$name: exit code $code after $SECONDS s" | tee -a "$out/summary.txt"
  [ $code = 0 ] || failed=1
}
: >"$out/summary.txt"
{ git rev-parse HEAD; nvidia-smi || true; } >"$out/machine.log" 2>&1
part doctor 30 npx musc doctor
part parity 70 npx vitest run tests/model/parity.test.ts
bench() { # NAME SECONDS ARGUMENTS...
  local name=$1 limit=$2
  shift 2
  part "$name" "$limit" npm run -s bench -- --device "$device" --rounds 1 --out "$out/$name.json" "$@"
}
bench embedded-one-by-one 50 --peers "$python" --only dpo,step-lora
if [ "$device" = cuda ]; then
  MUSC_CUDA_GRAPHS=functions bench embedded-functions 30 --peers none --only dpo,step-lora
  MUSC_CUDA_GRAPHS=xla bench embedded-xla 50 --peers none --only step-lora
  # Both sides with bf16 weights: ours keeps them so with graphs. The peer's figures are for both rows of ours.
  MUSC_CUDA_GRAPHS=functions bench llama-1b-functions 110 --shape llama-1b --math bf16 --peers "$python" --only dpo,step-lora
  MUSC_CUDA_GRAPHS=xla bench llama-1b-xla-step 60 --shape llama-1b --math bf16 --peers none --only step-lora
  MUSC_CUDA_GRAPHS=xla bench llama-1b-xla-dpo 80 --shape llama-1b --math bf16 --peers none --only dpo
fi
cat "$out/summary.txt"
exit $failed
