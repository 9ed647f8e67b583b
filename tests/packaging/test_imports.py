"""Who imports whom, and what works without torch and Triton."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "triton"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
"""

SOURCES = """
import ast
from pathlib import Path
import sparsec
from sparsec.backends.registry import builder
from sparsec.pipeline import Compilation

for path in sorted(Path("examples").glob("*.sparse")):
    program = sparsec.load(path)
    for name in program.patterns:
        pattern = program.pattern(name)
        lowered = pattern.lowered(*((None, None) if pattern.heads else (8, 4)))
        cpu, gpu = (Compilation(lowered, 64, 64, "bfloat16", target) for target in ("cpu", "cuda:90"))
        assert "sparsec_forward" in builder("cpu").sources(cpu, ("forward", "backward"))["forward"], name
        for text in builder("cuda:90").sources(gpu, ("forward", "backward")).values():
            ast.parse(text)
        print(name)
"""


STAGES = """
from sparsec.backends.base import PARTS
from sparsec.cli.lower import STAGES
from sparsec.cli.main import commands

for stage in STAGES:
    for of in PARTS:
        file = ["lower", "examples/s2.sparse", "--pattern", "s2"]
        commands([*file, "--emit", stage, "--of", of, "--dtype", "float16"], standalone_mode=False)
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)


def test_a_file_becomes_cpp_and_triton_source_without_torch_or_triton() -> None:
    run = python(BLOCKER + SOURCES)
    assert run.returncode == 0, run.stderr
    assert "s2" in run.stdout.split()


def test_every_stage_is_printed_without_torch_or_triton() -> None:
    run = python(BLOCKER + STAGES)
    assert run.returncode == 0, run.stderr
    assert "sparsec_forward" in run.stdout and "import triton" in run.stdout


def test_the_blocker_blocks() -> None:
    assert "torch is blocked" in python(BLOCKER + "import torch").stderr


def test_importing_sparsec_or_its_command_line_does_not_import_torch() -> None:
    code = "import sys, sparsec, sparsec.cli.main; print(sorted({'torch', 'triton', 'jax'} & set(sys.modules)))"
    assert python(code).stdout.strip() == "[]"


def test_the_registry_imports_no_backend() -> None:
    code = (
        "import sys, sparsec.backends.registry\n"
        "print(sorted(n for n in sys.modules if n in ('torch', 'jinja2') or n.startswith('sparsec.backends.')))"
    )
    found = python(code).stdout.strip()
    assert (
        found
        == "['sparsec.backends.absent', 'sparsec.backends.base', 'sparsec.backends.built', 'sparsec.backends.paged', "
        "'sparsec.backends.registry']"
    )


def test_the_contracts_of_imports_name_every_backend() -> None:
    backends = {f"sparsec.backends.{path.parent.name}" for path in (ROOT / "sparsec" / "backends").glob("*/backend.py")}
    assert len(backends) > 1
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    named = {contract["name"]: contract for contract in contracts}
    layers = named["Imports run down the pipeline"]["layers"]
    assert backends in [set(layer.split(" | ")) for layer in layers]
    assert backends == set(named["A backend is imported by the registry alone"]["forbidden_modules"])
    assert backends <= set(named["jinja2 stays in the emitters"]["source_modules"])


def test_imports_run_in_one_direction() -> None:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    run = python(code)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr
    assert " 0 broken" in run.stdout


def test_what_runs_kernels_is_imported_without_the_compiler_of_torch() -> None:
    """Which takes a second."""
    run = python("import sys, sparsec.runtime.compile; assert 'torch._dynamo' not in sys.modules")
    assert run.returncode == 0, run.stderr
