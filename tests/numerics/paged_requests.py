"""Requests whose keys lie in a server's pages, drawn: what has no key is NaN, and where no page is needed, any number.

Invariant: rows of a request's tokens alone hold numbers, and of these only such as lie in a page that is not dead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from paged_inputs import packed_inputs
from torch import Tensor

from sparsec.backends import registry
from sparsec.backends.base import Kernels
from sparsec.backends.paged import PagedKernel
from sparsec.backends.torch.kernel import TorchKernel
from sparsec.pipeline import Lowered
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.launch import LaunchPlan
from sparsec.reference.mask import mask
from sparsec.runtime.compile import module_of
from sparsec.runtime.kernel import LoadedKernel
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.request import Request, kernel_name
from sparsec.sema.model import ResolvedPattern
from sparsec.testing.inputs import key_bias_in
from sparsec.testing.tolerance import assert_close, expected_attention

STALE = (-(2**31), -1, 0, 1, 7, 2**31 - 1)
"""Entries of a table where no page is needed."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The tokens of each request, and how many of them are the call's; the pages' size, and how they lie in memory."""

    requests: tuple[tuple[int, int], ...]
    page_size: int
    packed: bool
    seed: int


def drawn_requests(longest: int, *, most: int = 4) -> st.SearchStrategy[Drawn]:
    request = st.tuples(st.integers(0, longest), st.one_of(st.integers(0, 2), st.integers(0, longest))).map(
        lambda pair: (pair[0], min(pair))
    )
    sizes = st.one_of(st.sampled_from([16, 32, 64, 128, 256]), st.integers(1, 40))
    several = st.lists(request, min_size=1, max_size=most).map(tuple)
    return st.builds(Drawn, several, sizes, st.booleans(), st.integers(0, 2**20))


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of one request: q [1, H, n, D], k [1, G, length, D], v [1, G, length, Dv]."""

    q: Tensor
    k: Tensor
    v: Tensor


def check_paged(attn: SparseAttention, pattern: ResolvedPattern, drawn: Drawn, *, check_inputs: bool) -> int:
    """Holds a call of `attn.paged` to the reference of each request; gives the number of dead pages."""
    torch.manual_seed(drawn.seed)
    tokens = [_tokens(attn, length, count) for length, count in drawn.requests]
    k_pages, v_pages, table, freed = _paged(attn, tokens, drawn)
    given, own_inputs = packed_inputs(pattern, drawn.requests, drawn.seed) if pattern.inputs else (None, None)
    with torch.no_grad():
        out, lse = attn.paged(
            torch.cat([each.q[0].transpose(0, 1) for each in tokens]),
            k_pages,
            v_pages,
            block_table=table,
            cu_seqlens_q=starts_of(drawn.requests),
            seq_lens=torch.tensor([length for length, _ in drawn.requests], dtype=torch.int32),
            inputs=given,
            return_lse=True,
            check_inputs=check_inputs and not pattern.inputs,  # a list may name what no request has more than once
        )
    at = 0
    for r, each in enumerate(tokens):
        count, length = each.q.shape[2], each.k.shape[2]
        own = slice(at, at := at + count)
        if count:
            said = None if own_inputs is None else own_inputs[r]
            seen = mask(pattern, count, length, inputs=said)
            sink, bias = None if attn.sink is None else attn.sink.detach(), key_bias_in(pattern, said)
            expected = expected_attention(each.q, each.k, each.v, seen, pattern.score, sink=sink, key_bias=bias)
            assert_close(out[own].transpose(0, 1)[None], lse[own].T[None], expected, seen)
    return freed


def paged_modules(
    patterns: Sequence[ResolvedPattern],
    target: str,
    head_dim: int,
    value_dim: int,
    build: Callable[[Sequence[tuple[CachedPlan, CachedPlan]]], Sequence[PagedKernel]],
    dtype: torch.dtype = torch.float32,
) -> list[SparseAttention]:
    """Modules that have the kernels over pages alone, which `build` makes of the plans of all."""
    requests = [Request(Lowered(pattern), head_dim, value_dim, dtype) for pattern in patterns]
    built = build([request.compilation(target).cached for request in requests])
    found = []
    for request, kernel in zip(requests, built, strict=True):
        plan = request.compilation(target).forward
        kernels = Kernels(TorchKernel(plan), _absent, _absent, make_paged=lambda kernel=kernel: kernel)  # type: ignore[misc]  # of a lambda's default
        loaded = LoadedKernel(kernels, LaunchPlan.of(plan), lambda plan=plan: plan)  # type: ignore[misc]  # likewise
        attn = module_of(registry.backend_name(target), kernel_name(request, target, "pages alone"), loaded, request)
        if attn.sink is not None:
            torch.nn.init.normal_(attn.sink)
        found.append(attn)
    return found


def _absent() -> Any:
    raise AssertionError("only pages are asked for")


def starts_of(requests: Sequence[tuple[int, int]]) -> Tensor:
    counts = torch.tensor([0, *(count for _, count in requests)])
    return counts.cumsum(0).to(torch.int32)


def _tokens(attn: SparseAttention, length: int, count: int) -> Tokens:
    shapes = (
        (attn.heads, count, attn.head_dim),
        (attn.kv_heads, length, attn.head_dim),
        (attn.kv_heads, length, attn.value_dim),
    )
    return Tokens(*(torch.randn(1, *shape).to(attn.dtype) for shape in shapes))


def _paged(attn: SparseAttention, tokens: list[Tokens], drawn: Drawn) -> tuple[Tensor, Tensor, Tensor, int]:
    """k_pages, v_pages and the table, with all tokens appended, and how many pages are dead."""
    size, widths = drawn.page_size, [-(-each.k.shape[2] // drawn.page_size) for each in tokens]
    free = (torch.randperm(sum(widths) + 2) + 1).tolist()
    k_pages, v_pages = _memory(attn, sum(widths) + 4, drawn)
    table = torch.tensor(STALE)[torch.randint(len(STALE), (len(tokens), max(widths) + 1))].to(torch.int32)
    freed = 0
    for r, each in enumerate(tokens):
        length, count = each.k.shape[2], each.q.shape[2]
        dead = {page for found in attn.dead_pages(length - count + 1, size) for page in found} if count else set()
        slots = torch.full((length,), -1)
        for page in range(widths[r]):
            if page not in dead:
                table[r, page] = free.pop()
                rows = torch.arange(page * size, min(page * size + size, length))
                slots[rows] = int(table[r, page]) * size + rows % size
        freed += len(dead)
        attn.append_paged(*(t[0].transpose(0, 1) for t in (each.k, each.v)), k_pages, v_pages, slots, check_inputs=True)
    return k_pages, v_pages, table, freed


def _memory(attn: SparseAttention, pages: int, drawn: Drawn) -> tuple[Tensor, Tensor]:
    """Pages of NaN; `packed`: keys and values side by side, head by head, else each alone, row by row."""
    size, groups, dims = drawn.page_size, attn.kv_heads, (attn.head_dim, attn.value_dim)
    if drawn.packed:
        whole = torch.full((pages, groups, size, sum(dims)), math.nan, dtype=attn.dtype).transpose(1, 2)
        return whole[..., : dims[0]], whole[..., dims[0] :]
    k_pages, v_pages = (torch.full((pages, size, groups, dim), math.nan, dtype=attn.dtype) for dim in dims)
    return k_pages, v_pages
