#!/bin/sh
# Whether `compress` keeps the keys that kvpress keeps, for the press objects of kvpress itself.
#
#     tests/kvpress/compare.sh FOLDER [ARGUMENT OF PIP...]
#
# Run it with sparsec's Python first in the PATH. It makes an environment for kvpress in FOLDER/env, unless there is one,
# for kvpress wants an older transformers than sparsec; arguments of pip name a torch without CUDA, for one. kvpress
# keeps keys there, sparsec in its own environment, into which kvpress alone is taken over.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
shift
if ! [ -d "$folder/env" ]; then
    python -m venv "$folder/env"
    "$folder/env/bin/python" -m pip install -q "$@" kvpress==0.5.5
fi
env -u PYTHONPATH "$folder/env/bin/python" -W ignore "$here/theirs.py" "$folder"
packages=$("$folder/env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
python -W ignore "$here/ours.py" "$folder" "$packages"
