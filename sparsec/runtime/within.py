"""A module -> modules of its pattern within one of its documents, within a range of keys, and without that range.

Invariant: a variant runs on the backend, the device and in the dtype of the module that it comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sparsec.pipeline import Lowered
from sparsec.sema.inputs import input_names
from sparsec.sema.model import (
    Columns,
    Complement,
    Documents,
    InputDecl,
    InputKind,
    Intersection,
    ResolvedPattern,
    RunTimeLength,
    Term,
)
from sparsec.sema.modifiers import LearnedSink

if TYPE_CHECKING:
    from sparsec.runtime.module import SparseAttention


def without_documents(attn: SparseAttention) -> SparseAttention:
    """The pattern as it is within one document that begins with key 0."""
    return _module(attn, replace(attn.lowered.pattern, documents=Documents.NONE))


def from_a_key(attn: SparseAttention) -> SparseAttention:
    """The pattern within one document, which begins with the key that the call gives as its last input: int [B]."""
    pattern = attn.lowered.pattern
    (name,) = _new_names(pattern, ("first_key",))
    begun = Columns(RunTimeLength(len(pattern.inputs)), None, blocks=False)
    found = {id(term): _both(term, begun) for term in pattern.terms}
    declared = (*pattern.inputs, InputDecl(name, InputKind.LENGTH, line=0, column=0))
    terms = tuple(found[id(term)] for term in pattern.terms)
    return _module(attn, replace(pattern, terms=terms, inputs=declared, documents=Documents.NONE))


def by_keys(attn: SparseAttention) -> tuple[SparseAttention, SparseAttention]:
    """The pattern within a range of keys, and the rest of it, which has no learned sink. The call gives the range's
    first key and the one past its last as the last two inputs: int [B]."""
    pattern = attn.lowered.pattern
    names = _new_names(pattern, ("first_key", "past_key"))
    ends = [RunTimeLength(len(pattern.inputs) + n) for n in range(2)]
    inside = Columns(ends[0], ends[1], blocks=False)
    declared = (*pattern.inputs, *(InputDecl(name, InputKind.LENGTH, line=0, column=0) for name in names))
    found = []
    for also in (inside, Complement(inside)):
        terms = {id(term): _both(term, also) for term in pattern.terms}
        found.append(replace(pattern, terms=tuple(terms[id(term)] for term in pattern.terms), inputs=declared))
    others = tuple(each for each in pattern.score.modifiers if not isinstance(each, LearnedSink))
    rest = replace(found[1], score=replace(pattern.score, modifiers=others))
    return _module(attn, found[0]), _module(attn, rest)


def _new_names(pattern: ResolvedPattern, names: Sequence[str]) -> list[str]:
    """Names for inputs that the pattern does not have."""
    taken = input_names(pattern.inputs)
    longest = max(map(len, taken), default=0)
    return [name if name not in taken else name.ljust(longest + 1, "_") for name in names]


def _both(term: Term, also: Term) -> Term:
    return Intersection((*term.terms, also) if isinstance(term, Intersection) else (term, also))


def _module(attn: SparseAttention, pattern: ResolvedPattern) -> SparseAttention:
    from sparsec.runtime.compile import module_for

    request = replace(attn._described(), lowered=Lowered(pattern), file_layout=None)
    made = module_for(request, attn.target, attn._device)
    made.scale = attn.scale
    return made
