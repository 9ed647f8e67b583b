"""What a compiled pattern is measured against: dense SDPA, sgemm, and the formula in float64 on a sample of rows.

Invariant: nothing of size Nq x Nk is built but by `eager`; the sampled rows are computed from the reference mask alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError, SparsecError
from sparsec.integrations.flex import FlexUnavailable, compile_flex
from sparsec.reference import attention, mask
from sparsec.reference.tolerance import allowed_errors
from sparsec.runtime.module import SparseAttention
from sparsec.sema.model import Documents, Heads

SAMPLE_BLOCKS, SAMPLE_ROWS = 4, 32
EAGER_LIMIT = 1 << 25
"""Scores of all heads and the batch up to which eager attention is run: it keeps several tensors of that size."""


class PeerAbsent(SparsecError):
    """A peer does not take this case; the message says why."""


@dataclass(frozen=True, slots=True)
class Error:
    """The largest and the mean absolute difference from float64; NaN if any output is."""

    largest: float
    mean: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """`ours` and that of plain PyTorch in the same dtype, `plain`, on the same `rows` of batch 0."""

    ours: Error
    plain: Error
    rows: int
    dtype: torch.dtype

    @property
    def allowed(self) -> Error:
        """By the tolerance policy."""
        return Error(*allowed_errors(self.plain.largest, self.plain.mean, self.dtype))

    @property
    def passed(self) -> bool:
        return self.ours.largest <= self.allowed.largest and self.ours.mean <= self.allowed.mean


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured: `length` queries on as many keys; `dtype` as torch calls it."""

    pattern: Heads
    batch: int
    length: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    def call(self, attn: SparseAttention) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """`attn` on q, k and v; where the pattern has `documents`, on one that fills the sequence."""
        if not attn.documents:
            return attn
        return partial(attn, cu_seqlens=torch.tensor([0, self.length], dtype=torch.int32, device=self.device))

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Normal q [batch, heads, length, head_dim] and k, v [batch, kv_heads, length, head_dim], always the same."""
        generator = torch.Generator(self.device).manual_seed(0)

        def drawn(heads: int) -> Tensor:
            shape = (self.batch, heads, self.length, self.head_dim)
            return torch.randn(shape, generator=generator, device=self.device).to(self.dtype)

        return drawn(self.pattern.heads), drawn(self.pattern.kv_heads), drawn(self.pattern.kv_heads)


def make_case(pattern: Heads, batch: int, length: int, head_dim: int, dtype: str, device: str | None) -> Case:
    """A Case; `device` is the GPU if left out and there is one, else the CPU. Raises CallError for no such device."""
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):
        where = None
    if where is None or where.type not in ("cpu", "cuda"):
        raise CallError(f"expected a device of this machine, such as cpu or cuda:0, got {name!r}")
    return Case(pattern, batch, length, head_dim, getattr(torch, dtype), where)


def simplifications(pattern: Heads, against: Collection[str]) -> tuple[str, ...]:
    """In words, where what is run and what it is compared with are not all that the pattern says."""
    score, found = pattern.score, []
    if pattern.documents is not Documents.NONE:
        found.append("documents: one that fills the sequence")
    if score.learned_sink:
        found.append("learned sink: 0")
    bends = [name for name, has in (("softcap", score.softcap is not None), ("alibi", score.alibi)) if has]
    sink = ["learned sink"] if score.learned_sink else []
    for name, lacks in (("sdpa", bends + sink), ("flex", sink)):
        if name in against and lacks:
            found.append(f"{name} runs without: {', '.join(lacks)}")
    return tuple(found)


def compare(pattern: Heads, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> Comparison:
    """The error of `out` [B, H, N, D] on up to 4 runs of 32 rows, the first and the last among them.

    A learned sink is taken to be 0, and `documents` to be one document.
    """
    length, score = q.shape[2], pattern.score
    per_group = pattern.heads // pattern.kv_heads
    parts = [(slice(g * per_group, (g + 1) * per_group), slice(g, g + 1)) for g in range(pattern.kv_heads)]
    if score.alibi:  # a head's slope depends on how many heads there are
        parts = [(slice(None), slice(None))]
    plainly = replace(pattern, documents=Documents.NONE)
    sink = q.new_zeros(pattern.heads, dtype=torch.float32) if score.learned_sink else None
    size = min(SAMPLE_ROWS, length)
    starts = sorted({n * (length - size) // max(SAMPLE_BLOCKS - 1, 1) for n in range(SAMPLE_BLOCKS)})
    ours, plain = [], []
    for start in starts:
        live = mask(plainly, size, length, q_offset=start).to(q.device)
        for heads, groups in parts:
            attend = partial(
                attention,
                q[:1, heads, start : start + size],
                k[:1, groups],
                v[:1, groups],
                live[heads],
                score.scale,
                softcap=score.softcap,
                alibi=score.alibi,
                sink=None if sink is None else sink[heads],
                q_offset=start,
            )
            exact, (plain_out, _) = attend()[0], attend(dtype=q.dtype)
            ours.append((out.detach()[:1, heads, start : start + size].double() - exact).abs())
            plain.append((plain_out.double() - exact).abs())
    return Comparison(_error(ours), _error(plain), len(starts) * size, q.dtype)


def _error(differences: list[Tensor]) -> Error:
    every = torch.cat([difference.flatten() for difference in differences])
    return Error(float(every.max()), float(every.mean()))


def dense(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float | None) -> Callable[[], Tensor]:
    """PyTorch's scaled_dot_product_attention on the same tensors without the pattern."""
    shared = k.shape[1] < q.shape[1]
    return lambda: torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=causal, scale=scale, enable_gqa=shared
    )


def over_dense_cache(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None) -> Callable[[], Tensor]:
    """PyTorch's scaled_dot_product_attention of the last queries, q, to all keys, causally."""
    shared, new, length = k.shape[1] < q.shape[1], q.shape[2], k.shape[2]
    live = None
    if new > 1:
        rows = torch.arange(length - new, length, device=q.device)
        live = torch.arange(length, device=q.device)[None, :] <= rows[:, None]
    return lambda: torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=live, scale=scale, enable_gqa=shared
    )


def copying(tensor: Tensor) -> Callable[[], Tensor]:
    """A copy between two tensors like `tensor`: it reads and writes as many bytes."""
    source, target = torch.empty_like(tensor), torch.empty_like(tensor)
    return lambda: target.copy_(source)


def eager(pattern: Heads, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
    """Plain PyTorch with all scores and a mask, the mask made beforehand. Raises PeerAbsent where they are too many."""
    scores = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    if scores > EAGER_LIMIT:
        raise PeerAbsent(f"{scores:.2g} scores at {k.shape[2]} tokens, more than {EAGER_LIMIT:.2g}")
    score = pattern.score
    live = mask(replace(pattern, documents=Documents.NONE), q.shape[2], k.shape[2]).to(q.device)
    sink = q.new_zeros(pattern.heads, dtype=torch.float32) if score.learned_sink else None
    attend = partial(
        attention, q, k, v, live, score.scale, softcap=score.softcap, alibi=score.alibi, sink=sink, dtype=q.dtype
    )
    return lambda: attend()[0]


def flex_with_gradients(pattern: Heads, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
    """`compile_flex` after a first backward pass. Raises FlexUnavailable, on a CPU always: it has no backward there."""
    if q.device.type == "cpu":
        raise FlexUnavailable("it has no backward pass on a CPU")
    flex = compile_flex(pattern, q, k, v)
    try:
        torch.autograd.grad(flex.call().sum(), (q, k, v))
    except Exception as error:  # as in compile_flex
        reason = next(iter(str(error).strip().splitlines()), "")
        raise FlexUnavailable(f"{type(error).__name__}: {reason}"[:200]) from error
    return flex.call


def passes(
    forward: Callable[[], Tensor], leaves: tuple[Tensor, ...]
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Calls that run `forward` and its gradients of `leaves`, and the gradients alone on a graph that is kept."""
    kept = forward()
    gradient = torch.randn(kept.shape, generator=torch.Generator(kept.device).manual_seed(1), device=kept.device)
    gradient = gradient.to(kept.dtype)
    return (
        lambda: torch.autograd.grad(forward(), leaves, gradient),
        lambda: torch.autograd.grad(kept, leaves, gradient, retain_graph=True),
    )


def matrix_product(dtype: torch.dtype, device: torch.device) -> tuple[Callable[[], Tensor], float]:
    """`torch.mm` of two square matrices and its floating-point operations.

    1024 wide in float32 on a CPU, whose kernels compute in float32 whatever the dtype; 8192 wide in `dtype` on a GPU.
    """
    size, dtype = (1024, torch.float32) if device.type == "cpu" else (8192, dtype)
    left, right = (torch.randn((size, size), device=device).to(dtype) for _ in range(2))
    return lambda: torch.mm(left, right), 2.0 * size**3


def median_seconds(
    calls: Mapping[str, Callable[[], object]], *, repeats: int, device: torch.device
) -> dict[str, float]:
    """The median time of each call over `repeats` rounds; every round runs each call once. One round warms up."""
    clock = _gpu_clock(device) if device.type == "cuda" else _cpu_seconds
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            taken = clock(call)
            if turn:
                times[name].append(taken)
    return {name: statistics.median(taken) for name, taken in times.items()}


def _cpu_seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _gpu_clock(device: torch.device) -> Callable[[Callable[[], object]], float]:
    """Times a call between two events; the fill before it empties the cache and gives the host time to launch."""
    scratch = torch.empty(1 << 28, dtype=torch.uint8, device=device)

    def seconds(call: Callable[[], object]) -> float:
        event: Any = torch.cuda.Event
        start, stop = event(enable_timing=True), event(enable_timing=True)
        torch.cuda.synchronize(device)
        scratch.zero_()
        start.record()
        call()
        stop.record()
        torch.cuda.synchronize(device)
        return float(start.elapsed_time(stop)) / 1000

    return seconds
