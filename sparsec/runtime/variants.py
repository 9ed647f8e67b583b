"""A module -> modules whose pattern follows from its own: some of its heads, or its pairs without `documents`.

Invariant: a variant runs on the backend, the device and in the dtype of the module that it comes from.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from sparsec.diagnostics.arguments import integer
from sparsec.diagnostics.model import CallError
from sparsec.pipeline import Lowered
from sparsec.runtime.request import Request
from sparsec.sema.inputs import input_names
from sparsec.sema.model import (
    Columns,
    Documents,
    InputDecl,
    InputKind,
    Intersection,
    ResolvedPattern,
    RunTimeLength,
    Term,
)

if TYPE_CHECKING:
    from sparsec.runtime.module import SparseAttention


def part_of_heads(attn: SparseAttention, rank: int, size: int) -> SparseAttention:
    """The heads of one of `size` ranks that share the module's, in order: as many KV groups for each, with their query
    heads; of fewer KV groups than ranks, several ranks have the same one, each with query heads of its own.

    Its `sink` is a parameter of its own, which starts as this rank's part. Raises CallError.
    """
    size = integer("size", size, 1)
    rank = integer("rank", rank, 0, size - 1)
    heads, groups = attn.heads, attn.kv_heads
    if heads % size or (groups % size and size % groups):
        raise CallError(
            f"expected a size that divides the {heads} heads, and divides or is a multiple of the {groups} KV heads, "
            f"got {size}"
        )
    own = slice(rank * heads // size, (rank + 1) * heads // size)
    pattern = attn.lowered.pattern
    part = replace(
        pattern,
        heads=heads // size,
        kv_heads=max(groups // size, 1),
        terms=pattern.terms[own],
        score=pattern.score.part(heads, own),
    )
    made = _module(attn, part)
    if made.sink is not None and attn.sink is not None:
        with torch.no_grad():
            made.sink.copy_(attn.sink[own])
    return made


def without_documents(attn: SparseAttention) -> SparseAttention:
    """The pattern as it is within one document that begins with key 0."""
    return _module(attn, replace(attn.lowered.pattern, documents=Documents.NONE))


def from_a_key(attn: SparseAttention) -> SparseAttention:
    """The pattern within one document, which begins with the key that the call gives as its last input: int [B]."""
    pattern = attn.lowered.pattern
    name = "first_key"
    while name in input_names(pattern.inputs):
        name += "_"
    begun = Columns(RunTimeLength(len(pattern.inputs)), None, blocks=False)
    found = {id(term): _both(term, begun) for term in pattern.terms}
    declared = (*pattern.inputs, InputDecl(name, InputKind.LENGTH, line=0, column=0))
    terms = tuple(found[id(term)] for term in pattern.terms)
    return _module(attn, replace(pattern, terms=terms, inputs=declared, documents=Documents.NONE))


def _both(term: Term, also: Term) -> Term:
    return Intersection((*term.terms, also) if isinstance(term, Intersection) else (term, also))


def _module(attn: SparseAttention, pattern: ResolvedPattern) -> SparseAttention:
    from sparsec.runtime.compile import module_for

    request = Request(Lowered(pattern), attn.head_dim, attn.value_dim, attn.dtype)
    return module_for(request, attn.target, attn._device)
