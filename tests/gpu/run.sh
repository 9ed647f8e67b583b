#!/usr/bin/env bash
# All that a machine with a GPU is needed for, in one call of under ten minutes: environment, numerics, a sweep of tile
# sizes, times beside PyTorch's own kernels and FlexAttention, hardware counters, memory and race checks. Each result is
# in OUT as soon as it is there; a short table comes last.
#   bash tests/gpu/run.sh [--part STEP ...] [--list]
# OUT: where results go (build/gpu if unset). PYTHON: the interpreter with torch, triton and pytest. WHEELS: a folder of
# wheels for packages that are missing there (.wheels if unset; `python tests/gpu/carry.py wheels` fills it).
set -u
cd "$(dirname "$0")/../.."
exec "${PYTHON:-python3}" tests/gpu/day.py "$@"
