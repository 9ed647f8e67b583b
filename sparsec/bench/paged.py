"""A step of decoding of several requests over a server's pages, timed beside the same over a KV cache -> figures and
their table.

Invariant: as of `measure`. Both attend to as many keys of each request, and store its new one; the pages of a request
lie anywhere in memory that is like the cache's, in pages of the system as large as it gives.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsec.bench.forward import launched_lines
from sparsec.diagnostics.tables import table

if TYPE_CHECKING:
    from torch import Tensor

    from sparsec.bench.baselines import BenchCase
    from sparsec.runtime.module import SparseAttention

SHORTEST = 8
"""The longest request has so many times the tokens of the shortest."""


@dataclass(frozen=True, slots=True)
class PagedFigures:
    """Seconds of one token of each of `requests` requests that have `shortest` to `longest` tokens, in even steps: over
    a cache, and over pages by their size; `by_head`: over pages in which the tokens of a head lie together; `shared`:
    where the pages of the first `prefix` tokens are the same ones. launched: as of Measurement, by the names of
    calls."""

    requests: int
    shortest: int
    longest: int
    cached: float
    paged: dict[int, float]
    by_head: dict[int, float]
    prefix: int
    shared: dict[int, float]
    launched: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""

        def said(of: dict[int, float]) -> dict[str, dict[str, float]]:
            return {str(size): {"ms": s * 1e3, "of_cache": s / self.cached} for size, s in of.items()}

        return {
            "requests": self.requests,
            "shortest": self.shortest,
            "seq_len": self.longest,
            "cache_ms": self.cached * 1e3,
            "pages": said(self.paged),
            "pages_by_head": said(self.by_head),
            "shared_prefix": self.prefix,
            "shared": said(self.shared),
            "host_time_in": self.launched,
        }


def request_lengths(requests: int, longest: int, prefix: int = 0) -> list[int]:
    """From longest / SHORTEST, or one more than `prefix`, to longest tokens in even steps."""
    shortest = max(longest // SHORTEST, prefix + 1)
    return [longest - (longest - shortest) * n // max(requests - 1, 1) for n in range(requests)]


def measure_paged(
    attn: SparseAttention,
    case: BenchCase,
    sizes: Sequence[int],
    *,
    prefix: int = 0,
    repeats: int,
    report: Callable[[str], None],
) -> PagedFigures:
    """Times a token of each of `case.batch` requests, the longest at about `case.length`; also where they share the
    pages of the first `prefix` tokens, if there are some. Raises as `SparseAttention.new_cache` and
    `SparseAttention.paged` do."""
    import torch

    from sparsec.bench.clock import CALLS_BESIDE_ROUNDS, median_seconds
    from sparsec.bench.filled import fill_cache

    lengths = request_lengths(case.batch, case.length, prefix)
    report("filling the cache")
    drawn = torch.Generator(case.device).manual_seed(0)

    def token(heads: int, dim: int) -> Tensor:
        shape = (case.batch, heads, 1, dim)
        return torch.randn(shape, generator=drawn, device=case.device).to(case.dtype)

    q = token(attn.heads, attn.head_dim)
    k, v = token(attn.kv_heads, attn.head_dim), token(attn.kv_heads, attn.value_dim)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the cache keeps every key")
        cache = attn.new_cache(case.batch, case.length + repeats + CALLS_BESIDE_ROUNDS, device=case.device)
    fill_cache(cache, [length - 1 for length in lengths])
    calls: dict[str, Callable[[], object]] = {"cache": lambda: attn(q, k, v, cache=cache)}
    for size in sizes:
        report(f"filling pages of {size}")
        calls[f"pages of {size}"] = _step(attn, case, (q, k, v), lengths, size)
        if attn.kv_heads > 1:
            calls[f"pages of {size} by head"] = _step(attn, case, (q, k, v), lengths, size, by_head=True)
        if prefix:
            calls[f"shared pages of {size}"] = _step(attn, case, (q, k, v), lengths, size, prefix)
    report(f"timing {', '.join(calls)} at {case.length} tokens, {repeats} rounds")
    times = median_seconds(calls, repeats=repeats, device=case.device)
    return PagedFigures(
        requests=case.batch,
        shortest=min(lengths),
        longest=case.length,
        cached=times["cache"].seconds,
        paged={size: times[f"pages of {size}"].seconds for size in sizes},
        by_head={size: times[f"pages of {size} by head"].seconds for size in sizes if attn.kv_heads > 1},
        prefix=prefix,
        shared={size: times[f"shared pages of {size}"].seconds for size in sizes} if prefix else {},
        launched=tuple(name for name, taken in times.items() if taken.host),
    )


def _step(
    attn: SparseAttention,
    case: BenchCase,
    token: Sequence[Tensor],
    lengths: Sequence[int],
    size: int,
    prefix: int = 0,
    *,
    by_head: bool = False,
) -> Callable[[], object]:
    """A call of one token of each request, over pages that lie in a drawn order; the first `prefix` tokens are in the
    same pages, as far as they fill them."""
    import torch

    from sparsec.runtime.kv.arena import arena

    device = case.device
    counts = [-(-length // size) for length in lengths]
    order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(1)).to(torch.int32)
    numbers = torch.zeros((len(lengths), max(counts)), dtype=torch.int32)
    for row, own in zip(numbers, torch.split(order, counts), strict=True):
        row[: len(own)] = own
    numbers[:, : prefix // size] = numbers[0, : prefix // size]
    within = (attn.kv_heads, size) if by_head else (size, attn.kv_heads)
    k_pages, v_pages = (
        arena((sum(counts), *within, dim), case.dtype, device).normal_() for dim in (attn.head_dim, attn.value_dim)
    )
    if by_head:
        k_pages, v_pages = k_pages.transpose(1, 2), v_pages.transpose(1, 2)
    ends = torch.tensor(lengths) - 1
    slots = (numbers[torch.arange(len(lengths)), ends // size] * size + ends % size).to(device, torch.int64)
    q, k, v = (each[:, :, 0].contiguous() for each in token)
    starts = torch.arange(len(lengths) + 1, dtype=torch.int32, device=device)
    lens, numbers = torch.tensor(lengths, dtype=torch.int32, device=device), numbers.to(device)

    def step() -> object:
        attn.append_paged(k, v, k_pages, v_pages, slots)
        return attn.paged(q, k_pages, v_pages, block_table=numbers, cu_seqlens_q=starts, seq_lens=lens)

    return step


def paged_table(measured: Sequence[PagedFigures]) -> str:
    head = ("requests", "tokens", "keys in", "ms a step", "of the cache's")
    rows = []
    for each in measured:
        of = (str(each.requests), f"{each.shortest} to {each.longest}")
        rows.append((*of, "a cache", f"{each.cached * 1e3:.3g}", "1.00x"))
        for size, seconds in each.paged.items():
            rows.append((*of, f"pages of {size}", f"{seconds * 1e3:.3g}", f"{seconds / each.cached:.2f}x"))
        for size, seconds in each.by_head.items():
            rows.append(
                (*of, f"pages of {size}, head by head", f"{seconds * 1e3:.3g}", f"{seconds / each.cached:.2f}x")
            )
        for size, seconds in each.shared.items():
            said = f"pages of {size}, {each.prefix} tokens shared"
            rows.append((*of, said, f"{seconds * 1e3:.3g}", f"{seconds / each.cached:.2f}x"))
    return "\n".join([table(head, rows), *launched_lines(measured)])
