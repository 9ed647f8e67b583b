"""A pattern's kernels -> calls of them at odd lengths, every tensor of a call being placed.

Invariant: the calls of the same settings are the same, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from findings import Settings
from guarded import guarding, one_more, placed
from guarded_kernels import Built, kernels
from lookups import any_lookups
from torch import Tensor

from sparsec.backends.base import Cached
from sparsec.backends.paged import Pages
from sparsec.plan.kernel import KernelPlan
from sparsec.plan.kv.pages import dead_pages
from sparsec.plan.launch import LaunchPlan
from sparsec.plan.target import DECODE_ROWS
from sparsec.runtime.draws import draw_tables
from sparsec.runtime.kv.stored import to_stored
from sparsec.sema.model import Documents

CPU_LENGTHS = (  # Nq, Nk, position of the first query
    *((1, 37, 36), (13, 13, 0), (77, 200, 123), (131, 131, 0), (65, 301, 40)),
    *((1, 1, 0), (200, 77, -123), (3, 64, 500), (0, 9, 9), (9, 0, -9)),
)
TRITON_LENGTHS = ((1, 37, 36), (13, 13, 0), (35, 70, 33), (40, 21, -19), (0, 9, 9))
MAX_LEN = 97
"""Tokens of a sequence in a cache."""
BATCH = 2
Tokens = tuple[int, tuple[int, int], tuple[int, int] | None]
"""Tokens of a call, the length of each sequence, and how many tokens are its own (None: all)."""


@dataclass(frozen=True, slots=True)
class Call:
    of: Built
    kernel: str
    shape: str
    side: str
    run: Callable[[], None]

    def __str__(self) -> str:
        return f"{self.kernel} kernel of {self.of.name}, {self.shape}, guard {self.side}"


def calls(settings: Settings) -> Iterator[Call]:
    for built in kernels(settings):
        for kernel in settings.kernels:
            if kernel in ("forward", "backward") or (kernel == "mass" and built.mass is not None):
                made = _passes(built, kernel, settings)
            elif kernel == "paged" and built.paged is not None:
                made = _over_pages(built)
            elif kernel not in ("mass", "paged") and built.cached is not None:
                made = _cached(built, kernel, settings)
            else:
                continue
            chosen = _in_turn(list(made), built.number, settings.lengths)
            for shape, run in chosen:
                for side in settings.sides:
                    yield Call(built, kernel, shape, side, partial(_run, run, side))


Run = Callable[["Place"], None]


class Place:
    """Makes tensors and places them."""

    def __init__(self, side: str) -> None:
        self.side = side
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, tensor: Tensor) -> Tensor:
        return placed(tensor, self.side)

    def random(self, *shape: int, dtype: torch.dtype = torch.float32, layout: int = 0) -> Tensor:
        """[B, H, N, D], or less: in order, rows outside heads, every second element, or one head for all."""
        made = torch.randn(shape, generator=self.generator).to(dtype)
        if layout == 1:
            made = made.transpose(1, 2).contiguous().transpose(1, 2)
        elif layout == 2:
            made = torch.stack((made, made), dim=-1)[..., 0]
        elif layout == 3:
            made = made[:, :1].expand_as(made)
        return self(made)

    def integers(self, values: object) -> Tensor:
        return self(torch.tensor(values, dtype=torch.int32))

    def sink(self, plan: KernelPlan | LaunchPlan) -> Tensor | None:
        return self(torch.linspace(-1.0, 1.5, plan.heads)) if plan.score.learned else None

    def key_bias(self, plan: LaunchPlan, batch: int, keys: int, seed: int) -> Tensor | None:
        """For a plan whose keys have weights; some are -inf."""
        if plan.score.bias is None:
            return None
        shape = (1, batch)[seed % 2], (1, plan.kv_heads, plan.heads)[seed % 3], keys
        made = torch.randn(shape, generator=self.generator)
        return self(torch.where(made < -1, -torch.inf, made))


def _run(run: Run, side: str) -> None:
    with torch.no_grad(), guarding(side):
        run(Place(side))


def _in_turn(made: Sequence[tuple[str, Run]], number: int, count: int) -> Iterator[tuple[str, Run]]:
    for n in range(min(count, len(made))):
        yield made[(number + n) % len(made)]


def _passes(built: Built, kernel: str, settings: Settings) -> Iterator[tuple[str, Run]]:
    for n, lengths in enumerate(CPU_LENGTHS if settings.target == "cpu" else TRITON_LENGTHS):
        packed = built.plan.documents is not Documents.NONE
        n_q, n_k, start = (lengths[0], lengths[0], 0) if packed else lengths
        batch, layout, threads = 1 if packed else 1 + n % BATCH, n % 4, 1 + n // 2 % 2
        shape = f"batch {batch}, Nq {n_q}, Nk {n_k}, offset {start}, layout {layout}, {threads} threads"
        yield shape, partial(_pass, built, kernel, (batch, n_q, n_k, start), layout, threads)


def _pass(built: Built, kernel: str, shape: tuple[int, int, int, int], layout: int, threads: int, place: Place) -> None:
    torch.set_num_threads(threads)
    plan, (batch, n_q, n_k, start), dtype = built.plan, shape, built.request.dtype
    of_queries, of_keys = (batch, plan.heads, n_q, plan.head_dim), (batch, plan.kv_heads, n_k, plan.head_dim)
    q = place.random(*of_queries, dtype=dtype, layout=layout)
    k, v = (place.random(*of_keys[:3], dim, dtype=dtype, layout=layout) for dim in (plan.head_dim, plan.value_dim))
    bounds = place.integers([0, 0, n_q // 2, min(n_q // 2 + 1, n_q), n_q])
    given: dict[str, Any] = {
        "q_offset": start,
        "scale": None,
        "lists": draw_tables(LaunchPlan.of(plan).lists, n_q, start, q.device),
        "sink": place.sink(plan),
        "cu_seqlens": None if plan.documents is Documents.NONE else bounds,
        "inputs": any_lookups(LaunchPlan.of(plan), batch, n_q, n_k, layout + n_q, place),
        "key_bias": place.key_bias(LaunchPlan.of(plan), batch, n_k, layout + n_q),
    }
    if kernel == "forward":
        built.forward().forward(q, k, v, **given)
        return
    out, grad_out = (place.random(*of_queries[:3], plan.value_dim, dtype=dtype, layout=layout) for _ in range(2))
    lse = place.random(*of_queries[:3], layout=min(layout, 1))
    lse[:, :, ::5] = -torch.inf  # rows that saw no key
    if kernel == "mass":
        assert built.mass is not None
        built.mass().mass(q, k, lse, **given)
        return
    grad_lse = place.random(*of_queries[:3]) if layout else None
    of_bias = given["key_bias"] is not None
    built.backward().backward(grad_out, grad_lse, q, k, v, out, lse, **given, of_bias=of_bias)


def _cached(built: Built, kernel: str, settings: Settings) -> Iterator[tuple[str, Run]]:
    """Sequences that are empty, that become full, and one that is padded."""
    assert built.cached is not None
    few = DECODE_ROWS if settings.target == "triton" else getattr(built.cached(), "few", 0)
    rows = few + 14
    made: tuple[Tokens, ...] = {
        "chunk": ((rows, (0, MAX_LEN - rows), None), (rows, (40, MAX_LEN - 1), (rows - 3, 1))),
        "rows": ((1, (0, MAX_LEN - 1), None), (2, (MAX_LEN - 2, 17), (2, 0)), (min(3, few), (50, 30), (1, 2))),
        "store": ((1, (0, MAX_LEN - 1), None), (MAX_LEN, (0, 0), (MAX_LEN, MAX_LEN - 5)), (5, (92, 0), (5, 0))),
    }[kernel]
    if settings.target == "triton":  # a graph that is replayed once too often, past the arena
        made = (*made, (rows if kernel == "chunk" else 2, (MAX_LEN - 1, 1), None))
    for n, (new, lengths, counts) in enumerate(made):
        shape = f"{new} tokens a call, lengths {lengths}, counts {counts}, layout {n}"
        yield shape, partial(_call_cached, built, kernel, (new, lengths, counts), n)


def _call_cached(built: Built, kernel: str, tokens: Tokens, layout: int, place: Place) -> None:
    assert built.cached is not None
    cached, dtype, (new, lengths, counts) = built.cached(), built.request.dtype, tokens
    plan, slots = cached.plan.chunks, cached.plan.layout.slots(MAX_LEN)
    torch.set_num_threads(1 + layout % 2)
    places = [[*group, *[(0, 0)] * (cached.plan.regions - len(group))] for group in cached.plan.layout.places(MAX_LEN)]
    dims = plan.head_dim, plan.value_dim
    stored = getattr(torch, getattr(cached, "kv_dtype", None) or str(dtype).removeprefix("torch."))
    keys, values = (place(to_stored(place.random(BATCH, slots, dim, dtype=dtype), stored)) for dim in dims)
    held = Cached(
        *(keys, values, place.integers(lengths), None if counts is None else place.integers(counts)),
        place.integers(places).view(-1, cached.plan.regions, 2),
        place(torch.tensor([lengths, lengths, [0, 0]])) if cached.advances else None,
    )
    k, v = (place.random(BATCH, plan.kv_heads, new, dim, dtype=dtype, layout=layout) for dim in dims)
    if kernel == "store":
        cached.store(k, v, held)
        return
    q = place.random(BATCH, plan.heads, new, plan.head_dim, dtype=dtype, layout=layout)
    lists = draw_tables(plan.lists, MAX_LEN, 0, q.device)
    inputs = any_lookups(plan, BATCH, new, MAX_LEN, layout + new, place)
    given = {"inputs": inputs, "key_bias": place.key_bias(plan, BATCH, MAX_LEN - layout, layout + new)}
    cached.attend(q, k, v, held, scale=None, lists=lists, sink=place.sink(plan), **given)


def _over_pages(built: Built) -> Iterator[tuple[str, Run]]:
    """Chunks and few queries together; the table holds any numbers, or names a page that may not be touched where no
    query needs one."""
    decoded = tuple((97 - 12 * n, 1) for n in range(9))  # of so many, one task takes packs together
    for n, requests in enumerate(
        (((37, 1), (90, 90), (5, 0), (97, 2), (97, 30)), ((64, 1),), ((97, 30), (96, 96), *decoded))
    ):
        for any_entry in (True, False):
            shape = f"(tokens, queries) {requests}, layout {n}, {'any' if any_entry else 'right'} entries"
            yield shape, partial(_call_paged, built, requests, (5, 16, 48)[n], n, any_entry)


def _call_paged(
    built: Built, requests: tuple[tuple[int, int], ...], size: int, layout: int, any_entry: bool, place: Place
) -> None:
    assert built.paged is not None
    kernel, dtype, count = built.paged(), built.request.dtype, 3
    plan, most = kernel.plan.chunks, -(-MAX_LEN // size)
    torch.set_num_threads(1 + layout % 2)
    shapes = [(count, size, plan.kv_heads, dim) for dim in (plan.head_dim, plan.value_dim)]
    keys, values = (place.random(*shape, dtype=dtype, layout=layout % 2) for shape in shapes)
    entries = torch.tensor([-(2**31), -1, 0, 2, 3, 2**31 - 1] if any_entry else range(count))
    table = entries[torch.randint(len(entries), (len(requests), most), generator=place.generator)]
    if not any_entry:
        keys, values = one_more(keys.contiguous()), one_more(values.contiguous())
        for row, (length, queries) in zip(table, requests, strict=True):
            row[-(-length // size) :] = count
            for dead in dead_pages(kernel.plan.layout, length - queries + 1, size) if queries else ():
                row[dead.start : dead.stop] = count
    starts = accumulate((queries for _, queries in requests), initial=0)
    lengths = place.integers([length for length, _ in requests])
    pages = Pages(keys, values, place.integers(table.tolist()), place.integers(list(starts)), lengths)
    q = place.random(sum(queries for _, queries in requests), plan.heads, plan.head_dim, dtype=dtype)
    kernel.attend(q, pages, scale=None, lists=draw_tables(plan.lists, MAX_LEN, 0, q.device), sink=place.sink(plan))
