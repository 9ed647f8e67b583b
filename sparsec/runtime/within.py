"""A module with `documents` -> the module of its pattern within one of them.

Invariant: a variant runs on the backend, the device and in the dtype of the module that it comes from.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sparsec.pipeline import Lowered
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

    request = replace(attn._described(), lowered=Lowered(pattern), file_layout=None)
    made = module_for(request, attn.target, attn._device)
    made.scale = attn.scale
    return made
