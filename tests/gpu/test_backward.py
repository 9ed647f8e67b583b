"""Gradients on a GPU against dense float64 autograd over the reference mask; skipped without a GPU."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

import sparsec
from sparsec.backends.triton import splits

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
S2 = "pattern p { block 64 causal attend sink(64) | window(4b) | stride(4b, phase = -g) }"
BY_HEAD = "pattern p { block 64 causal attend window(2b) | stride(4b, phase = -h) }"
RANDOM = "pattern p { block 64 causal attend window(2b) | random(3, seed = 5) }"
DUO = "pattern p { causal where h in [0, 5] attend full otherwise attend sink(64) | window(256) }"
BENT = "pattern p { causal attend sink(10) | window(300)  softcap 30  alibi }"
HEADS, KV_HEADS = 8, 2


def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor, bent: bool) -> torch.Tensor:
    """Attention as plain PyTorch; scores of what is not seen are -inf."""
    share = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(share, 1).mT * q.shape[3] ** -0.5
    if bent:
        scores = 30.0 * torch.tanh(scores / 30.0)
        nq, nk = seen.shape[1:]
        far = (torch.arange(nk - nq, nk, device=q.device)[:, None] - torch.arange(nk, device=q.device)).abs()
        slopes = 2.0 ** (-8.0 * torch.arange(1, HEADS + 1, device=q.device) / HEADS)
        scores = scores - (slopes[:, None, None] * far).to(scores.dtype)
    return torch.softmax(scores.masked_fill(~seen, -torch.inf), -1) @ v.repeat_interleave(share, 1)


SOURCES = {"s2": S2, "by head": BY_HEAD, "random": RANDOM, "duo": DUO, "bent": BENT}
CASES = (
    *((name, head_dim, torch.bfloat16) for head_dim in (64, 128) for name in SOURCES),
    *(("s2", head_dim, dtype) for dtype in (torch.float16, torch.float32) for head_dim in (64, 128)),
    *(("s2", head_dim, torch.bfloat16) for head_dim in (96, 256)),
    ("bent", 256, torch.bfloat16),
    ("bent", 64, torch.float32),
    ("random", 128, torch.float16),
    ("duo", 96, torch.float16),
)
"""Each dimension and dtype with each kind of pattern once: the compiler takes ten seconds and more for one."""


@pytest.mark.parametrize(("name", "head_dim", "dtype"), CASES, ids=lambda value: str(value).removeprefix("torch."))
def test_gradients(name: str, head_dim: int, dtype: torch.dtype) -> None:
    source = SOURCES[name]
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    pattern = sparsec.parse(source).pattern()
    attn = sparsec.compile(
        pattern, heads=HEADS, kv_heads=KV_HEADS, head_dim=head_dim, dtype=dtype, device="cuda", target="triton"
    )
    for nq, nk in ((65, 65), (500, 1000), (1111, 1111)):
        torch.manual_seed(nq)
        q, g = (torch.randn(2, HEADS, nq, head_dim, device="cuda").to(dtype) for _ in range(2))
        k, v = (torch.randn(2, KV_HEADS, nk, head_dim, device="cuda").to(dtype) for _ in range(2))
        seen = pattern.mask(nk, nk, heads=HEADS, kv_heads=KV_HEADS)[:, nk - nq :].cuda()
        found, plain, want = [], [], []
        for kind, into in (("ours", found), ("plain", plain), ("exact", want)):
            leaves = [t.detach().to(torch.float64 if kind == "exact" else dtype).requires_grad_() for t in (q, k, v)]
            out = attn(*leaves) if kind == "ours" else dense(*leaves, seen, source == BENT)
            into += torch.autograd.grad(out, leaves, g.to(out.dtype))
            if kind == "ours":
                again = torch.autograd.grad(attn(*leaves), leaves, g)
                assert all(torch.equal(a, b) for a, b in zip(into, again, strict=True))
        factor = 10.0 if dtype == torch.float32 else 2.0
        for ours, theirs, exact in zip(found, plain, want, strict=True):
            error, allowed = ((t.double() - exact).abs().max().item() for t in (ours, theirs))
            assert not ours.isnan().any() and error <= max(factor * allowed, 1e-5)
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("name", SOURCES)
def test_keys_that_programs_share(name: str, head_dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long call's gradients are those of a call whose key tiles have a program each, and have the same bits again."""
    given = {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": head_dim, "dtype": torch.bfloat16, "device": "cuda"}
    attn = sparsec.compile(SOURCES[name], target="triton", **given)
    torch.manual_seed(0)
    q, g = (torch.randn(1, HEADS, 5000, head_dim, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    k, v = (torch.randn(1, KV_HEADS, 5000, head_dim, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    leaves = [t.requires_grad_() for t in (q, k, v)]
    assert 5000 // 64 * HEADS // KV_HEADS > splits.LONG_WALK
    found = [torch.autograd.grad(attn(*leaves), leaves, g) for _ in range(3)]  # a call, one recorded, one replayed
    for again in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(again, found[0], strict=True))
    monkeypatch.setattr(splits, "LONG_WALK", 1 << 30)
    alone = sparsec.compile(SOURCES[name], target="triton", **given)
    for one, other in zip(found[0], torch.autograd.grad(alone(*leaves), leaves, g), strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02 * other.abs().max().item())


@pytest.mark.parametrize("restart", [False, True])
def test_packed_documents_equal_single_ones(restart: bool) -> None:
    word = "documents restart" if restart else "documents"
    given = {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": 64, "dtype": torch.bfloat16, "device": "cuda"}
    packed = sparsec.compile(f"pattern p {{ causal {word} attend full }}", target="triton", **given)
    single = sparsec.compile("pattern p { causal attend full }", target="triton", **given)
    bounds = [0, 100, 100, 357, 358, 1000]
    torch.manual_seed(0)
    q, g = (torch.randn(1, HEADS, 1000, 64, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    k, v = (torch.randn(1, KV_HEADS, 1000, 64, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    leaves = [t.requires_grad_() for t in (q, k, v)]
    out = packed(*leaves, cu_seqlens=torch.tensor(bounds, dtype=torch.int32, device="cuda"))
    found = (out, *torch.autograd.grad(out, leaves, g))
    for begin, end in pairwise(bounds):
        if begin < end:
            parts = [t.detach()[:, :, begin:end].requires_grad_() for t in leaves]
            alone = single(*parts)
            expected = (alone, *torch.autograd.grad(alone, parts, g[:, :, begin:end]))
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one[:, :, begin:end], other, rtol=0.02, atol=0.02)
