"""A folder for the CPU in a program without Python: its header, and the example that calls its kernel."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import sparsec
from sparsec.backends.cpu import calls
from sparsec.runtime.build.artefact import compile_to_directory

EXAMPLES = Path(__file__).parents[3] / "examples"
pytestmark = pytest.mark.kernels
STRICT = ("-Wall", "-Wextra", "-Werror")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("embedded") / "dense"
    pattern = sparsec.load(EXAMPLES / "dense.sparse").pattern()
    compile_to_directory(pattern, made, target="cpu", heads=4, kv_heads=2, head_dim=32, value_dim=16, dtype="float32")
    return made


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


def test_the_example_computes_attention(folder: Path, tmp_path: Path) -> None:
    program, library = tmp_path / "embed", folder / "forward.so"
    options = ("-std=c++17", "-O2", *STRICT, "-I", folder)
    built = run("g++", *options, EXAMPLES / "embed.cpp", library, f"-Wl,-rpath,{folder}", "-o", program)
    assert built.returncode == 0, built.stderr
    done = run(program)
    assert (done.returncode, done.stderr) == (0, "")
    assert 0.0 < float(done.stdout.removeprefix("largest error ")) < 1e-5


SIZES = """#include <stdio.h>
#include "kernels.h"
int main(void) {
  printf("%zu %zu %zu %zu\\n", sizeof(sparsec_call), sizeof(sparsec_cached_call), sizeof(sparsec_backward_call),
         sizeof(sparsec_mass_call));
  printf("%d %d %d %d %d\\n", sparsec_heads, sparsec_kv_heads, sparsec_head_dim, sparsec_value_dim,
         SPARSEC_SCALE == 0.17677669529663687f);
  return sparsec_forward == 0 || sparsec_attend_chunk == 0 || sparsec_attend_rows == 0 || sparsec_store == 0 ||
         sparsec_backward == 0 || sparsec_mass == 0;
}
"""


@pytest.mark.parametrize("compiler", [("gcc", "-std=c99", "-pedantic"), ("g++", "-xc++", "-std=c++17")])
def test_the_header_is_c_and_cplusplus(folder: Path, tmp_path: Path, compiler: tuple[str, ...]) -> None:
    (tmp_path / "sizes.c").write_text(SIZES)
    libraries = [folder / f"{part}.so" for part in ("forward", "cached", "backward", "mass")]
    options = (
        *STRICT,
        "-Wno-address",
        "-I",
        folder,
        tmp_path / "sizes.c",
        "-xnone",
        *libraries,
        f"-Wl,-rpath,{folder}",
    )
    built = run(*compiler, *options, "-o", tmp_path / "sizes")
    assert built.returncode == 0, built.stderr
    done = run(tmp_path / "sizes")
    sizes = " ".join(str(each.packer().size) for each in (calls.FORWARD, calls.CACHED, calls.BACKWARD, calls.MASS))
    assert (done.returncode, done.stdout) == (0, f"{sizes}\n4 2 32 16 1\n")
