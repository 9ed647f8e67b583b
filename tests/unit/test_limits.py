"""What lowering and planning refuse reaches a caller as the file's diagnostic, wherever it is found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import sparsec
from sparsec.cli.main import commands
from sparsec.diagnostics.model import DiagnosticError
from sparsec.pipeline import Lowered
from sparsec.plan.build import CLASS_LIMIT, TooManyClasses
from sparsec.runtime.build.artefact import compile_to_directory

PERIODS = "pattern p {{ {heads} causal attend window(16) | stride(16 + h) }}"
"""Each head is of a kind of its own."""


def columns(first: int) -> str:
    return " | ".join(f"columns({at}..{at + 1})" for at in range(first, first + 160, 4))


GROUPS = f"pattern p {{ heads 4 kv 2  causal  where h < 3 attend {columns(0)}  otherwise attend {columns(2)} }}"
"""Heads 2 and 3 of KV group 1 have 40 bands each, and 80 together."""


def test_too_many_kinds_of_heads_in_a_file() -> None:
    with pytest.raises(DiagnosticError, match=r"E417.*the heads of pattern `p` are of 65 kinds, over the limit of 64"):
        sparsec.parse(PERIODS.format(heads="heads 65"))
    assert sparsec.parse(PERIODS.format(heads="heads 64")).pattern().heads == CLASS_LIMIT


def test_too_many_kinds_of_heads_in_a_call(tmp_path: Path) -> None:
    pattern = sparsec.parse(PERIODS.format(heads="")).pattern()
    for target in ("torch", "cpu"):
        with pytest.raises(DiagnosticError, match=r"E417.*are of 70 kinds"):
            sparsec.compile(pattern, heads=70, head_dim=16, target=target, device="cpu")
    with pytest.raises(DiagnosticError, match=r"E417.*are of 70 kinds"):
        compile_to_directory(pattern, tmp_path / "out", target="cpu", heads=70, head_dim=16, dtype="float32")
    with pytest.raises(TooManyClasses, match="expected at most 64 kinds of heads, got 70"):
        Lowered(pattern.resolve(70)).within_limits()


@pytest.mark.parametrize("command", ["show", "explain", "run", "bench", "verify"])
def test_too_many_kinds_of_heads_on_the_command_line(tmp_path: Path, command: str) -> None:
    path = tmp_path / "p.sparse"
    path.write_text(PERIODS.format(heads=""))
    result = CliRunner().invoke(commands, [command, str(path), "--heads", "70"])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert "error[E417]" in result.stderr


def test_the_bands_of_a_group_are_told_from_those_of_a_head() -> None:
    pattern = sparsec.parse(GROUPS).pattern()
    said = r"E414.*what the heads of KV group 1 see together does not simplify to 64 bands or fewer"
    with pytest.raises(DiagnosticError, match=said):
        pattern.cache_layout()
    attn = sparsec.compile(pattern, head_dim=16, target="torch", device="cpu")
    q, k = torch.randn(1, 4, 9, 16), torch.randn(1, 2, 9, 16)
    assert attn(q, k, k).shape == q.shape
    assert attn.explain(100).prices == ()
    with pytest.raises(DiagnosticError, match=said):
        attn.new_cache(1, 100)
