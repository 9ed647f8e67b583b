"""ALiBi on every target that runs here: published slopes for any number of heads, and slopes that a pattern lists."""

from __future__ import annotations

import json

import pytest
import torch
from dense_gradients import Score, dense, mask_of, slopes_of
from torch import Tensor
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

import sparsec
from sparsec.backends.cpu.kernel import has_compiler
from sparsec.pipeline import Lowered
from sparsec.plan.launch import Launches
from sparsec.runtime.build.manifest import launch_data, launches_of
from sparsec.runtime.module import SparseAttention
from sparsec.sema import model
from sparsec.sema.modifiers import Alibi, published_slopes

LISTED = (0.5, 0.0, 0.3, 1 / 128, 2.0, 0.25)
TARGETS = ["torch", "reference", pytest.param("cpu", marks=pytest.mark.skipif(not has_compiler(), reason="no C++"))]
LENGTH = 90
CASES = {
    "published": ("alibi", {}, True),
    "listed": ("alibi [0.5, 0, 0.3, 1/128, 2, 0.25]", {}, LISTED),
    "named": ("let steep = [0.5, 0, 0.3, 1/128, 2, 0.25]  alibi steep", {}, LISTED),
    "given": ("alibi slopes", {"slopes": list(LISTED)}, LISTED),
    "given as text": ("alibi slopes", {"slopes": "[0.5, 0, 0.3, 1/128, 2, 1/4]"}, LISTED),
}


@pytest.mark.parametrize("heads", [1, 2, 3, 5, 6, 7, 8, 12, 14, 16, 20, 32, 40, 56, 71, 112])
def test_published_slopes_are_those_of_transformers(heads: int) -> None:
    theirs = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)  # [heads, 1, 2]: slope times position
    torch.testing.assert_close(torch.tensor(published_slopes(heads)), theirs[:, 0, 1], rtol=3e-6, atol=0)


def module(statement: str, params: dict[str, object], target: str) -> SparseAttention:
    text = f"pattern p(slopes = [0.5, 1]) {{ causal {statement} attend window(40) | sink(3) }}"
    return sparsec.compile(text, heads=6, kv_heads=3, head_dim=16, target=target, device="cpu", params=params)  # type: ignore[arg-type]  # each case's are right


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES)
def test_outputs_gradients_and_cache(case: str, target: str) -> None:
    statement, params, alibi = CASES[case]
    attn = module(statement, params, target)
    generator = torch.Generator().manual_seed(5)
    q, g = (torch.randn(1, 6, LENGTH, 16, generator=generator) for _ in "qg")
    k, v = (torch.randn(1, 3, LENGTH, 16, generator=generator) for _ in "kv")
    seen = mask_of(lambda h, i, j: (j <= i) & ((i - j < 40) | (j < 3)), 6, LENGTH, LENGTH, 0)
    want = dense(q, k, v, seen, 0, g, None, Score(alibi=alibi))
    leaves = [t.clone().requires_grad_() for t in (q, k, v)]
    out, lse = attn(*leaves, return_lse=True)
    found = [out.detach(), lse.detach(), *torch.autograd.grad(out, leaves, g)]
    for ours, right in zip(found, (want.out, want.lse, want.dq, want.dk, want.dv), strict=True):
        torch.testing.assert_close(ours.double(), right, rtol=2e-5, atol=2e-5)
    if target != "reference":
        torch.testing.assert_close(walked(attn, q, k, v).double(), want.out, rtol=2e-5, atol=2e-5)


def walked(attn: SparseAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A chunk into a cache, then single tokens and another chunk."""
    cache, parts = attn.new_cache(batch_size=1, max_len=LENGTH), []
    for start, stop in ((0, 50), (50, 51), (51, 52), (52, LENGTH)):
        parts.append(attn(*(t[:, :, start:stop] for t in (q, k, v)), cache=cache))
    return torch.cat(parts, dim=2)


def test_a_manifest_keeps_slopes_to_the_bit() -> None:
    pattern = sparsec.parse("pattern p { alibi [0.1, 1/3, 1e-30] causal attend full }").pattern().resolve()
    plan = Lowered(pattern).plan_forward(head_dim=16, dtype="float32", query_tile=64, key_tile=64)
    data = json.loads(json.dumps(launch_data(Launches.of(plan, None, None))))
    found = launches_of(data, "no cache").forward
    assert found.score == plan.score == model.Score(None, (Alibi((0.1, 1 / 3, 1e-30)),))


def test_the_formula_in_these_tests_is_that_of_transformers() -> None:
    for heads in (6, 12):
        theirs = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1]
        torch.testing.assert_close(torch.tensor(slopes_of(True, heads)), theirs, rtol=3e-6, atol=0)
