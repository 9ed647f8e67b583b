"""The check of gradients accepts attention computed well, and refuses planted mistakes, in calls of few rows too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.reference.mask import mask
from sparsec.sema.model import Score
from sparsec.sema.modifiers import LearnedSink, Softcap
from sparsec.testing.gradients import check_gradients

HEADS, KV_HEADS, HEAD_DIM = 4, 2, 16
SHAPES = ((1, 1), (1, 150), (2, 3), (5, 90), (40, 40), (63, 200), (130, 130))
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
SOFTCAP = 2.0
SCORE = Score(None, (Softcap(SOFTCAP), LearnedSink()))


@dataclass(frozen=True, slots=True)
class Mistakes:
    """What a gradient kernel gets wrong; `narrow` is no mistake: weights and slopes rounded before their products."""

    narrow: bool = False
    lost_keys: tuple[str, ...] = ()
    lost_rows: tuple[str, ...] = ()
    of_lse: float = 1.0
    of_sink: float = 1.0
    of_delta: float = 1.0
    of_scale: float = 1.0
    of_cap: float = 1.0
    lost_head: bool = False
    edge: bool = False


class Attention(torch.autograd.Function):
    """FlashAttention's algorithms without their tiles: float32 inside, the output stored in the inputs' dtype."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, sink: Tensor, mask: Tensor, wrong: Mistakes) -> Any:
        weights, _, lse = soft_max(q, k, sink, mask)
        out = (weights @ of_heads(v, mask)).to(q.dtype)
        ctx.save_for_backward(q, k, v, sink, mask, out, lse)
        ctx.wrong = wrong
        return out, lse

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q, k, v, sink, mask, out, lse = ctx.saved_tensors
        wrong, (grad_out, grad_lse) = ctx.wrong, grads
        if wrong.edge:  # each row's last key is forgotten
            last = mask.shape[2] - 1 - mask.flip(2).int().argmax(dim=2, keepdim=True)
            mask = mask & (torch.arange(mask.shape[2]) != last)
        weights, bend, _ = soft_max(q, k, sink, mask, lse)
        gradient = grad_out.float()
        delta = wrong.of_delta * (gradient * out.float()).sum(-1) - wrong.of_lse * grad_lse
        slope = weights * (gradient @ of_heads(v, mask).mT - delta[..., None])
        slope = slope * (1 + wrong.of_cap * (bend - 1))
        if wrong.narrow:
            weights, slope = (t.to(q.dtype).float() for t in (weights, slope))
        kept = {name: kept_part(name, mask, wrong) for name in ("dq", "dk", "dv")}
        scale = wrong.of_scale * HEAD_DIM**-0.5
        dq = (slope * kept["dq"]) @ of_heads(k, mask) * scale
        dk, dv = (slope * kept["dk"]).mT @ q.float() * scale, (weights * kept["dv"]).mT @ gradient
        if wrong.lost_head:
            dk, dv = (torch.cat((t[:, :-1], torch.zeros_like(t[:, -1:])), 1) for t in (dk, dv))
        dk, dv = (t.unflatten(1, (KV_HEADS, -1)).sum(2) for t in (dk, dv))
        dsink = -wrong.of_sink * (torch.exp(sink[:, None] - lse) * delta).sum(dim=(0, 2))
        return dq.to(q.dtype), dk.to(q.dtype), dv.to(q.dtype), dsink, None, None


def soft_max(
    q: Tensor, k: Tensor, sink: Tensor, mask: Tensor, lse: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, the soft cap's slope, and the LSE (`lse` if given)."""
    bent = torch.tanh(q.float() @ of_heads(k, mask).mT * HEAD_DIM**-0.5 / SOFTCAP)
    scores = (bent * SOFTCAP).masked_fill(~mask, -torch.inf)
    if lse is None:
        lse = torch.logaddexp(scores.logsumexp(-1), sink[:, None])
    return torch.exp(scores - lse[..., None]), 1 - bent * bent, lse


def of_heads(keys: Tensor, mask: Tensor) -> Tensor:
    """[B, heads, Nk, D] in float32; zeros for the keys that no query sees."""
    seen = mask.unflatten(0, (KV_HEADS, -1)).any(2).any(1)[None, :, :, None]
    return torch.where(seen, keys, 0).float().repeat_interleave(HEADS // KV_HEADS, 1)


def kept_part(name: str, mask: Tensor, wrong: Mistakes) -> Tensor:
    """[Nq, Nk], 1 but for a lost block: the last 64 keys, or the first 64 rows."""
    kept = torch.ones(mask.shape[1:])
    if name in wrong.lost_keys:
        kept[:, -64:] = 0
    if name in wrong.lost_rows:
        kept[:64] = 0
    return kept


def check(wrong: Mistakes, dtype: torch.dtype, shape: tuple[int, int], seed: int = 0) -> None:
    n_q, n_k = shape
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(1, HEADS, n_q, HEAD_DIM, generator=generator).to(dtype)
    k, v = (torch.randn(1, KV_HEADS, n_k, HEAD_DIM, generator=generator).to(dtype) for _ in "kv")
    sink = torch.linspace(-1.0, 1.5, HEADS).requires_grad_()
    mask = torch.ones(HEADS, n_q, n_k, dtype=torch.bool).tril(n_k - n_q)
    check_gradients(lambda q, k, v: Attention.apply(q, k, v, sink, mask, wrong), *(q, k, v, mask, SCORE), sink=sink)


PLANTED = {
    "lost keys of dq": ("dq", Mistakes(lost_keys=("dq",))),
    "lost keys of dk": ("dk", Mistakes(lost_keys=("dk",))),
    "lost keys of dv": ("dv", Mistakes(lost_keys=("dv",))),
    "lost rows of dk": ("dk", Mistakes(lost_rows=("dk",))),
    "lost rows of dv": ("dv", Mistakes(lost_rows=("dv",))),
    "LSE ignored": ("dq", Mistakes(of_lse=0.0)),
    "LSE doubled": ("dq", Mistakes(of_lse=2.0)),
    "LSE off by 2 %": ("dq|dk|dsink", Mistakes(of_lse=1.02)),
    "delta ignored": ("dq|dk", Mistakes(of_delta=0.0)),
    "sink off by 1 %": ("dsink", Mistakes(of_sink=1.01)),
    "sink negated": ("dsink", Mistakes(of_sink=-1.0)),
    "scale off by 2 %": ("dq|dk", Mistakes(of_scale=1.02)),
    "soft cap ignored": ("dq|dk", Mistakes(of_cap=0.0)),
    "a head of the group lost": ("dk", Mistakes(lost_head=True)),
    "the last key of each row lost": ("dq", Mistakes(edge=True)),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("narrow", [False, True])
def test_what_is_right_passes(dtype: torch.dtype, shape: tuple[int, int], narrow: bool) -> None:
    for seed in range(5):
        check(Mistakes(narrow=narrow), dtype, shape, seed)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_found(dtype: torch.dtype, shape: tuple[int, int], name: str) -> None:
    where, wrong = PLANTED[name]
    for candidate in (wrong, replace(wrong, narrow=True)):
        with pytest.raises(AssertionError, match=f"error of the ({where}) is"):
            check(candidate, dtype, shape)


LARGE = "pattern p { heads 4  block 64  scale 1.5  softcap 50  alibi  attend stride(64, phase = 22) }"
"""One key a row: weights of 1, but for what a float32 of the LSE rounds off."""


@pytest.mark.kernels
def test_a_kernel_that_reads_large_log_sum_exps_passes() -> None:
    attn = sparsec.compile(LARGE, head_dim=HEAD_DIM, target="cpu")
    pattern = sparsec.parse(LARGE).pattern().resolve()
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        q, k, v = (torch.randn(1, 4, 64, HEAD_DIM, generator=generator) for _ in range(3))

        def attend(q: Tensor, k: Tensor, v: Tensor, factor: float = 1.0) -> Any:
            out, lse = attn(q, k, v, return_lse=True)
            return out, torch.lerp(lse.detach(), lse, factor)

        call = 3 * q, k, v, mask(pattern, 64, 64), pattern.score
        check_gradients(attend, *call)
        with pytest.raises(AssertionError, match="error of the dq is"):
            check_gradients(lambda q, k, v: attend(q, k, v, 0.9999), *call)
