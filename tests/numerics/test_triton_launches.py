"""How kernels are launched, seen in Triton's interpreter: with the tiles, warps, stages and registers of picks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from triton.runtime.interpreter import InterpretedFunction
from triton_harness import in_interpreter, passes_in_the_interpreter

import sparsec
from sparsec.backends.triton.kernel import interpreted
from sparsec.plan import target
from sparsec.plan.picks import Family, Kind, Pick
from sparsec.plan.target import DECODE_ROWS

PICKS = {
    Kind.FORWARD: Pick(32, 16, 1, 5, 64),
    Kind.GRAD_QUERIES: Pick(16, 32, 2, 4, 72),
    Kind.GRAD_KEYS: Pick(32, 64, 4, 3, 80),
    Kind.CHUNK: Pick(64, 16, 8, 2, 88),
    Kind.DECODE: Pick(DECODE_ROWS, 64, 16, 1, 96),
}
NAMES = {"forward_0": Kind.FORWARD, "attend_0": Kind.CHUNK, "decode_0": Kind.DECODE} | {
    f"{kind.value}_0": kind for kind in (Kind.GRAD_QUERIES, Kind.GRAD_KEYS)
}


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


def launches(monkeypatch: pytest.MonkeyPatch, terms: str) -> dict[str, dict[str, Any]]:
    """What each kernel was launched with, in a forward pass, its gradients, a chunk over a cache and a step of one."""
    found: dict[str, dict[str, Any]] = {}
    honest = InterpretedFunction.run

    def noted(self: Any, *arguments: Any, **named: Any) -> Any:
        found[self.fn.__name__] = named
        return honest(self, *arguments, **named)

    monkeypatch.setattr(InterpretedFunction, "run", noted)
    attn = sparsec.compile(
        f"pattern p {{ heads 1 causal attend {terms} }}", head_dim=64, dtype=torch.float16, target="triton"
    )
    q = torch.ones(1, 1, 20, 64, dtype=torch.float16, requires_grad=True)
    attn(q, q, q).sum().backward()
    with torch.no_grad():
        cache = attn.new_cache(1, 32)
        for tokens in (1, 17):
            attn(*(q[:, :, :tokens] for _ in range(3)), cache=cache)
    return found


@in_interpreter
def test_every_kind_of_kernel_is_launched_as_its_pick_says(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {(Family.INTERPRETER, kind, 64, "float16"): pick for kind, pick in PICKS.items()}
    monkeypatch.setattr(target, "PICKS", table)
    found = launches(monkeypatch, "full")
    for name, kind in NAMES.items():
        given, pick = found[name], PICKS[kind]
        assert (given["num_warps"], given["num_stages"], given["maxnreg"]) == (pick.warps, pick.stages, pick.maxnreg)


@in_interpreter
def test_without_a_limit_of_registers_no_such_option_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """AMD's compiler knows none."""
    found = launches(monkeypatch, "window(9)")  # a process keeps the launches of a pattern that it has compiled
    assert found.keys() >= NAMES.keys()
    assert all("maxnreg" not in given and "num_warps" in given for given in found.values())
