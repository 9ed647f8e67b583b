"""Baselines of one's own and of the package flash-attn: they are found and run, or it is said why not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import sparsec
from sparsec.bench.baseline_calls import Passes, baseline_calls
from sparsec.bench.baseline_names import FLASH_ATTN, baseline_label
from sparsec.bench.own_baselines import check_own
from sparsec.cli.main import commands
from sparsec.diagnostics.model import CallError

TEXT = """
import torch
class kernels:
    @staticmethod
    def attend(q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
def few(q, k, v):
    return q[:, :1]
def failing(q, k, v):
    raise ValueError("no such luck\\nand more")
number = 7
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file in the working directory, of a name of its own."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(TEXT)
    (tmp_path / "p.sparse").write_text("pattern p { causal attend full }")
    monkeypatch.chdir(tmp_path)
    return name


def test_a_callable_runs_on_the_same_tensors(module: str) -> None:
    pattern = sparsec.parse("pattern p { causal attend full }").pattern().resolve(2, 2)
    q, k, v = torch.randn(3, 1, 2, 9, 4)
    names = (f"{module}:kernels.attend", f"{module}:few", f"{module}:failing", FLASH_ATTN)
    found = baseline_calls(pattern, (q, k, v), names, passes=Passes.FORWARD, causal=True, report=lambda _: None)
    assert list(found.calls) == [names[0]] and baseline_label(names[0]) == names[0]
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert torch.equal(found.calls[names[0]](), wanted)
    assert found.absent[names[1]] == "it has to give torch.float32 [1, 2, 9, 4], and gave torch.float32 [1, 1, 9, 4]"
    assert found.absent[names[2]] == "ValueError: no such luck"
    assert found.absent[FLASH_ATTN] == "it is for float16 and bfloat16 on a GPU, and these are torch.float32 on cpu"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent_module:f", "got ModuleNotFoundError: No module named 'absent_module'"),
        ("{}:absent", "got AttributeError: module '.*' has no attribute 'absent'"),
        ("{}:number", "expected a callable .q, k, v. -> out in '.*:number', got int"),
        (FLASH_ATTN, "expected the package flash-attn for the baseline flash-attn"),
    ],
)
def test_what_cannot_be_imported(module: str, name: str, message: str) -> None:
    with pytest.raises(CallError, match=message):
        check_own((name.format(module),))


@pytest.mark.parametrize("body", ["import sys; sys.path.remove(sys.path[0])", "import sys; sys.path.insert(0, 'x')"])
def test_the_path_of_modules_is_as_before(body: str, module: str, tmp_path: Path) -> None:
    """Whatever the module did to it."""
    (tmp_path / f"{module}_path.py").write_text(f"{body}\nf = len\n")
    before = list(sys.path)
    check_own((f"{module}_path:f",))
    assert sys.path == before


def test_a_module_that_ends_the_program(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}_script.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(CallError, match=f"got a module '{module}_script' that ends the program"):
        check_own((f"{module}_script:f",))
    found = CliRunner().invoke(commands, ["bench", "p.sparse", "--heads", "1", "--against", f"{module}_script:f"])
    assert found.exit_code == 2 and "ends the program" in f"{found.output}{found.exception}"


def test_the_command_line(module: str) -> None:
    found = CliRunner().invoke(commands, ["bench", "p.sparse", "--heads", "1", "--against", "sdpa,a b:x"])
    assert found.exit_code == 2 and "or MODULE:CALLABLE, got 'sdpa,a b:x'" in " ".join(found.output.split())
    found = CliRunner().invoke(commands, ["bench", "p.sparse", "--heads", "1", "--against", f"{module}:absent"])
    assert found.exit_code != 0 and "AttributeError" in f"{found.output}{found.exception}"
