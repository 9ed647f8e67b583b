"""What a compiled pattern is measured against: dense SDPA, sgemm, and the formula in float64 on a sample of rows.

Invariant: nothing of size Nq x Nk is built but by `eager`; the sampled rows are computed from the reference mask alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import sparsec
from sparsec.bench.baseline_names import DENSE
from sparsec.diagnostics.model import CallError, SparsecError, in_one_line
from sparsec.integrations.flex.compiled import Flex, compile_flex
from sparsec.integrations.flex.terms import FlexUnavailable
from sparsec.pictures.given import live_mask, shared
from sparsec.program import Pattern
from sparsec.reference import attention, mask
from sparsec.reference.parts import InputTensors, inputs_of_part
from sparsec.reference.tolerance import allowed_errors
from sparsec.runtime.kv.arena import arena
from sparsec.runtime.module import SparseAttention
from sparsec.sema.model import Documents, ResolvedPattern

SAMPLE_BLOCKS, SAMPLE_ROWS = 4, 32
_BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
EAGER_LIMIT = 1 << 25
"""Scores of all heads and the batch up to which eager attention is run: it keeps several tensors of that size."""


class BaselineAbsent(SparsecError):
    """A baseline does not take this case; the message says why."""


@dataclass(frozen=True, slots=True)
class Error:
    """The largest and the mean absolute difference from float64; NaN if any output is."""

    largest: float
    mean: float

    def as_dict(self) -> dict[str, float | None]:
        """For JSON, which has no NaN and no infinity: None instead."""
        return {name: number if math.isfinite(number) else None for name, number in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`ours` and that of plain PyTorch in the same dtype, `plain`, on the same `rows` of each of `heads` of batch 0."""

    ours: Error
    plain: Error
    rows: int
    heads: int
    dtype: torch.dtype

    @property
    def allowed(self) -> Error:
        """By the tolerance policy."""
        return Error(*allowed_errors(self.plain.largest, self.plain.mean, self.dtype, self.heads * self.rows))

    @property
    def passed(self) -> bool:
        return self.ours.largest <= self.allowed.largest and self.ours.mean <= self.allowed.mean

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        errors = {"sparsec": self.ours, "torch": self.plain, "allowed": self.allowed}
        return {"rows": self.rows, "passed": self.passed, **{name: each.as_dict() for name, each in errors.items()}}


@dataclass(frozen=True, slots=True)
class BenchCase:
    """What is measured: `length` queries on as many keys; `dtype` as torch calls it; `given`: the pattern's inputs;
    `kv_dtype`: as of `SparseAttention.new_cache`."""

    pattern: ResolvedPattern
    batch: int
    length: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    given: Mapping[str, InputTensors] = field(default_factory=dict)
    kv_dtype: str | None = None

    def call(self, attn: SparseAttention) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """`attn` on q, k and v, with the inputs; where the pattern has `documents`, on one that fills the sequence."""
        more: dict[str, Any] = {"inputs": self.given} if self.given else {}
        if attn.documents:
            more["cu_seqlens"] = torch.tensor([0, self.length], dtype=torch.int32, device=self.device)
        return partial(attn, **more) if more else attn

    def compiled(self, pattern: Pattern | str, target: str | None = None, **more: Any) -> SparseAttention:
        """`pattern` with the heads, dimension and dtype of the case, for its device; `more`: as of `sparsec.compile`,
        whose errors it raises."""
        return sparsec.compile(
            pattern,
            heads=self.pattern.heads,
            kv_heads=self.pattern.kv_heads,
            head_dim=self.head_dim,
            dtype=self.dtype,
            device=self.device,
            target=target,
            **more,
        )

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Normal q [batch, heads, length, head_dim] and k, v [batch, kv_heads, length, head_dim], always the same."""
        generator = torch.Generator(self.device).manual_seed(0)

        def drawn(heads: int) -> Tensor:
            shape = (self.batch, heads, self.length, self.head_dim)
            return torch.randn(shape, generator=generator, device=self.device).to(self.dtype)

        return drawn(self.pattern.heads), drawn(self.pattern.kv_heads), drawn(self.pattern.kv_heads)


def make_case(
    pattern: ResolvedPattern, batch: int, length: int, head_dim: int, dtype: str, device: str | None
) -> BenchCase:
    """`device` is the GPU if left out and there is one, else the CPU. Raises CallError for no such device."""
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):
        where = None
    if where is None or where.type not in ("cpu", "cuda"):
        raise CallError(f"expected a device of this machine, such as cpu or cuda:0, got {name!r}")
    return BenchCase(pattern, batch, length, head_dim, getattr(torch, dtype), where)


def simplifications(pattern: ResolvedPattern, against: Collection[str]) -> tuple[str, ...]:
    """In words, where what is run and what it is compared with are not all that the pattern says."""
    score, found = pattern.score, []
    if pattern.documents is not Documents.NONE:
        found.append("documents: one that fills the sequence")
    words = {modifier.entry: modifier.entry.keyword.replace("_", " ") for modifier in score.modifiers}
    found += [f"{word}: 0" for entry, word in words.items() if entry.learned]
    of_rows = [word for entry, word in words.items() if not entry.per_pair]
    for name, lacks in (*((name, list(words.values())) for name in DENSE), ("flex", of_rows), ("flex64", of_rows)):
        if name in against and lacks:
            found.append(f"{name} runs without: {', '.join(lacks)}")
    return tuple(found)


def compare(
    pattern: ResolvedPattern,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    given: Mapping[str, InputTensors] | None = None,
) -> Comparison:
    """The error of `out` [B, H, N, D] on up to 4 runs of 32 rows, the first and the last among them.

    A learned sink is taken to be 0, and `documents` to be one document.
    """
    length, score = q.shape[2], pattern.score
    per_group = pattern.heads // pattern.kv_heads
    parts = [(slice(g * per_group, (g + 1) * per_group), slice(g, g + 1)) for g in range(pattern.kv_heads)]
    plainly = replace(pattern, documents=Documents.NONE)
    sink = q.new_zeros(pattern.heads, dtype=torch.float32) if score.learned else None
    size = min(SAMPLE_ROWS, length)
    starts = sorted({n * (length - size) // max(SAMPLE_BLOCKS - 1, 1) for n in range(SAMPLE_BLOCKS)})
    ours, plain = [], []
    for start in starts:
        live = _sampled(plainly, given or {}, start, size, length).to(q.device)
        for heads, groups in parts:
            attend = partial(
                attention,
                q[:1, heads, start : start + size],
                k[:1, groups],
                v[:1, groups],
                live[heads],
                score.part(pattern.heads, heads),
                sink=None if sink is None else sink[heads],
                q_offset=start,
            )
            exact, (plain_out, _) = attend()[0], attend(dtype=q.dtype)
            ours.append((out.detach()[:1, heads, start : start + size].double() - exact).abs())
            plain.append((plain_out.double() - exact).abs())
    return Comparison(_error(ours), _error(plain), len(starts) * size, pattern.heads, q.dtype)


def _sampled(pattern: ResolvedPattern, given: Mapping[str, InputTensors], start: int, size: int, length: int) -> Tensor:
    """bool [H, size, length]: the mask of the queries from `start` on, in sequence 0."""
    if not pattern.inputs:
        return mask(pattern, size, length, q_offset=start)
    part = inputs_of_part(pattern, given, queries=(start, start + size), keys=(0, length))
    return mask(pattern, size, length, q_offset=start, inputs=part)[0]


def _error(differences: list[Tensor]) -> Error:
    every = torch.cat([difference.flatten() for difference in differences])
    return Error(float(every.max()), float(every.mean()))


def baselines_on(device: torch.device, against: Collection[str]) -> tuple[str, ...]:
    """`against`, with "sdpa" on a GPU replaced by its backends there, so that each time names what ran."""
    backends = tuple(_BACKENDS) if device.type == "cuda" else ("sdpa",)
    return tuple(dict.fromkeys(baseline for name in against for baseline in (backends if name == "sdpa" else (name,))))


def dense(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float | None, backend: str = "sdpa"
) -> Callable[[], Tensor]:
    """PyTorch's scaled_dot_product_attention on the same tensors without the pattern, by `backend` alone.

    Backends: "sdpa" (PyTorch's choice), "flash", "cudnn". Raises BaselineAbsent where that one does not run.
    """
    return _scaled_dot_product(q, k, v, None, causal, scale, backend)


def masked(live: Tensor, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None) -> Callable[[], Tensor]:
    """The same with the pattern's mask, made beforehand: bool [B or 1, X, Nq, Nk], X being 1, the KV heads or all."""
    if 1 < live.shape[1] < q.shape[1]:
        live = live.repeat_interleave(q.shape[1] // live.shape[1], dim=1)
    return _scaled_dot_product(q, k, v, live.to(q.device), False, scale, "sdpa")


def over_dense_cache(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float | None, backend: str = "sdpa"
) -> Callable[[], Tensor]:
    """The same of the last queries, q, to all keys, causally."""
    new, length = q.shape[2], k.shape[2]
    live = None
    if new > 1:
        rows = torch.arange(length - new, length, device=q.device)
        live = torch.arange(length, device=q.device)[None, :] <= rows[:, None]
    return _scaled_dot_product(q, k, v, live, False, scale, backend)


def _scaled_dot_product(
    q: Tensor, k: Tensor, v: Tensor, live: Tensor | None, causal: bool, scale: float | None, backend: str
) -> Callable[[], Tensor]:
    shared = k.shape[1] < q.shape[1]

    def attend() -> Tensor:
        with _only(backend):
            return torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=live, is_causal=causal, scale=scale, enable_gqa=shared
            )

    if backend != "sdpa":
        try:
            attend()
        except RuntimeError as error:
            raise BaselineAbsent(in_one_line(error)) from error
    return attend


def _only(backend: str) -> AbstractContextManager[object]:
    return sdpa_kernel([_BACKENDS[backend]]) if backend in _BACKENDS else nullcontext()


def copying(tensor: Tensor) -> Callable[[], Tensor]:
    """A copy between two tensors like `tensor`, in memory like a cache's: it reads and writes as many bytes. What it
    reads was written once: memory that never was has no pages of its own."""
    source, target = (arena(tuple(tensor.shape), tensor.dtype, tensor.device) for _ in range(2))
    source.fill_(1)
    return lambda: target.copy_(source)


MASKED_LIMIT = 1 << 30
"""Pairs of distinct heads up to which a mask is made for the baselines that take one."""


def baseline_mask(
    pattern: ResolvedPattern, given: Mapping[str, InputTensors], n_q: int, n_k: int, start: int
) -> Tensor:
    """`live_mask`. Raises BaselineAbsent where it is too large."""
    pairs = shared(pattern, given).heads * n_q * n_k
    if pairs > MASKED_LIMIT:
        raise BaselineAbsent(f"its mask has {pairs:.2g} pairs at {n_k} tokens, more than {MASKED_LIMIT:.2g}")
    return live_mask(pattern, given, n_q, n_k, start)


def eager(pattern: ResolvedPattern, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
    """Plain PyTorch with all scores and a mask, made beforehand. Raises BaselineAbsent where they are too many."""
    scores = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    if scores > EAGER_LIMIT:
        raise BaselineAbsent(f"{scores:.2g} scores at {k.shape[2]} tokens, more than {EAGER_LIMIT:.2g}")
    score = pattern.score
    live = mask(replace(pattern, documents=Documents.NONE), q.shape[2], k.shape[2]).to(q.device)
    sink = q.new_zeros(pattern.heads, dtype=torch.float32) if score.learned else None
    attend = partial(attention, q, k, v, live, score, sink=sink, dtype=q.dtype)
    return lambda: attend()[0]


def flex_with_gradients(
    pattern: ResolvedPattern,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    block: int = 128,
    inputs: Mapping[str, InputTensors] | None = None,
) -> Flex:
    """`compile_flex` after a first backward pass. Raises FlexUnavailable, on a CPU always: it has no backward there."""
    if q.device.type == "cpu":
        raise FlexUnavailable("it has no backward pass on a CPU")
    flex = compile_flex(pattern, q, k, v, block=block, inputs=inputs)
    started = time.perf_counter()
    try:
        torch.autograd.grad(flex.call().sum(), (q, k, v))
    except Exception as error:  # as in compile_flex
        raise FlexUnavailable(in_one_line(error)) from error
    return replace(flex, compile_seconds=flex.compile_seconds + time.perf_counter() - started)


def passes(
    forward: Callable[[], Tensor], leaves: tuple[Tensor, ...]
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Calls that run `forward` and its gradients of `leaves`, and the gradients alone.

    The second keeps the autograd graph of its first call, for gradients run on the stream that the outputs came from.
    """
    q = leaves[0]
    gradient = torch.randn(q.shape, generator=torch.Generator(q.device).manual_seed(1), device=q.device).to(q.dtype)
    kept: list[Tensor] = []

    def backward() -> object:
        if not kept:
            kept.append(forward())
        return torch.autograd.grad(kept[0], leaves, gradient, retain_graph=True)

    return lambda: torch.autograd.grad(forward(), leaves, gradient), backward


def matrix_product(dtype: torch.dtype, device: torch.device) -> tuple[Callable[[], Tensor], float]:
    """`torch.mm` of two square matrices and its floating-point operations.

    1024 wide in float32 on a CPU, whose kernels compute in float32 whatever the dtype; 8192 wide in `dtype` on a GPU.
    """
    size, dtype = (1024, torch.float32) if device.type == "cpu" else (8192, dtype)
    left, right = (torch.randn((size, size), device=device).to(dtype) for _ in range(2))
    return lambda: torch.mm(left, right), 2.0 * size**3
