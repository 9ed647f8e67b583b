#!/usr/bin/env bash
# Numerics, then times against PyTorch's own kernels, on a machine with a CUDA GPU: one call, under ten minutes.
#   bash tests/gpu/run.sh
# PYTHON: the interpreter, with torch, triton and pytest. WHEELS: a folder of wheels for whatever else is missing.
# OUT: where results go (tests/bench/results if unset). The table comes last; the exit status is the tests'.
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
exit "$status"
