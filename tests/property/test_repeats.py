"""Two runs on the same inputs give the same bits: forward, gradients, and steps over a cache."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from vacuity import wanted

import sparsec
from sparsec.runtime.module import SparseAttention

TEXT = """
pattern p {
    heads 4 kv 2  block 16  causal  softcap 3  learned_sink
    where g == 0 attend sink(4) | window(20) | stride(3b, phase = 1b)
    where g == 1 attend window(1b) | random(2)
}
"""
"""As in tests/unit/runtime/test_artefact.py, so that one build of the kernels serves both."""
TOKENS, PREFILL = 75, 70
REPEATS = wanted(30, at_night=1_000)
THREADS = (1, 2, 3, 5)


@pytest.fixture(scope="module", params=["cpu", "torch"])
def attn(request: pytest.FixtureRequest) -> SparseAttention:
    made = sparsec.compile(TEXT, head_dim=16, target=request.param)
    assert made.sink is not None
    made.sink.data.copy_(torch.tensor([0.5, -1.0, 2.0, 0.0]))
    return made


@pytest.fixture(autouse=True)
def _threads_stay() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def outputs(attn: SparseAttention) -> list[Tensor]:
    """Output and LSE, four gradients, a chunk and five steps over a cache, always of the same inputs."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn((2, heads, TOKENS, 16), generator=generator).requires_grad_() for heads in (4, 2, 2))
    out, lse = attn(q, k, v, return_lse=True)
    gradients = torch.autograd.grad(out.sin().sum() + lse.cos().sum(), (q, k, v, attn.sink))
    steps: list[Tensor] = []
    with torch.no_grad():
        cache = attn.new_cache(2, TOKENS)
        for first, last in ((0, PREFILL), *((n, n + 1) for n in range(PREFILL, TOKENS))):
            steps += attn(*(t[:, :, first:last] for t in (q, k, v)), cache=cache, return_lse=True)
    return [out.detach(), lse.detach(), *gradients, *steps]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(ours, theirs) for ours, theirs in zip(left, right, strict=True))


@pytest.mark.filterwarnings("ignore:.*a later query may draw any block")
def test_repeated_runs_are_equal_bit_for_bit(attn: SparseAttention) -> None:
    first = outputs(attn)
    assert all(torch.isfinite(tensor).all() for tensor in first)
    for _ in range(REPEATS):
        assert same(outputs(attn), first)


@pytest.mark.filterwarnings("ignore:.*a later query may draw any block")
@pytest.mark.parametrize("attn", ["cpu"], indirect=True)  # what `torch` multiplies is PyTorch's own
def test_the_number_of_threads_changes_no_bit(attn: SparseAttention) -> None:
    found = []
    for threads in THREADS:
        torch.set_num_threads(threads)
        found.append(outputs(attn))
    assert all(same(other, found[0]) for other in found[1:])
