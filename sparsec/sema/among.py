"""A resolved pattern -> the same within the keys that one more input marks.

Invariant: the ordinals of the pattern's own inputs stay; equal heads share one term object.
"""

from __future__ import annotations

from dataclasses import replace

from sparsec.sema.model import Input, InputDecl, InputKind, Intersection, ResolvedPattern, Term


def among_marked(pattern: ResolvedPattern, name: str) -> ResolvedPattern:
    """Pairs of the pattern whose key is marked by input `name`, of kind tokens, which it does not declare yet."""
    marked = Input(len(pattern.inputs))
    found = {id(term): _both(term, marked) for term in pattern.terms}
    declared = (*pattern.inputs, InputDecl(name, InputKind.TOKENS, line=0, column=0))
    return replace(pattern, terms=tuple(found[id(term)] for term in pattern.terms), inputs=declared)


def _both(term: Term, marked: Input) -> Term:
    return Intersection((*term.terms, marked) if isinstance(term, Intersection) else (term, marked))
