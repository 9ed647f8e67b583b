#!/usr/bin/env bash
# Numerics, then times against PyTorch's own kernels, then some of the numerics under compute-sanitizer's memcheck and
# racecheck where that is installed, on a machine with a CUDA GPU: one call, under ten minutes.
#   bash tests/gpu/run.sh
# PYTHON: the interpreter, with torch, triton and pytest. WHEELS: a folder of wheels for whatever else is missing.
# OUT: where results go (tests/bench/results if unset). The table comes before what compute-sanitizer found; the exit
# status is the tests', or the sanitizer's.
set -u
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" TRITON_DEFAULT_FP_FUSION=1
unset TRITON_INTERPRET

if ! "$python" -c "import lark, jinja2, networkx, click, rich, numpy, hypothesis, pytest" 2>/dev/null; then
  "$python" -m pip install --quiet --no-index --find-links "${WHEELS:-wheels}" \
    lark jinja2 networkx click rich numpy hypothesis pytest || exit 2
fi

timeout 240 "$python" -m pytest -o addopts= -q -p no:cacheprovider --durations=5 tests/gpu
status=$?
timeout 330 "$python" tests/gpu/bench.py || status=$((status ? status : $?))

# Without PyTorch's caching allocator every tensor is an allocation of its own, and memcheck knows its ends.
some="test_offsets or test_strides or test_padded_rows or (test_walk and duo and 64 and bfloat16)"
sanitize() { # TOOL SECONDS
  if ! command -v compute-sanitizer >/dev/null; then
    echo "$1: not run, for there is no compute-sanitizer here"
  elif (($2 < 30)); then
    echo "$1: not run, for no time was left"
  else
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout "$2" compute-sanitizer --tool "$1" --error-exitcode 99 --print-limit 10 \
      "$python" -m pytest -o addopts= -q -p no:cacheprovider tests/gpu -k "$some"
    local found=$?
    case $found in
      0) echo "$1: no findings" ;;
      124) echo "$1: not finished in $2 seconds" ;;
      *) status=$((status ? status : found)) ;;
    esac
  fi
}
sanitize memcheck $(((590 - SECONDS) / 2))
sanitize racecheck $((590 - SECONDS))
exit "$status"
