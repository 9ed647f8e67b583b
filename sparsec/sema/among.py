"""A resolved pattern -> the same within another term, such as the keys that one more input marks.

Invariant: the ordinals of the pattern's own inputs stay; equal heads share one term object.
"""

from __future__ import annotations

from dataclasses import replace

from sparsec.sema.model import Input, InputDecl, InputKind, Intersection, ResolvedPattern, Term


def among_marked(pattern: ResolvedPattern, name: str) -> ResolvedPattern:
    """Pairs of the pattern whose key is marked by input `name`, of kind tokens, which it does not declare yet."""
    marked = Input(len(pattern.inputs))
    return intersected(pattern, marked, InputDecl(name, InputKind.TOKENS, line=0, column=0))


def intersected(pattern: ResolvedPattern, also: Term, *more: InputDecl) -> ResolvedPattern:
    """Pairs of the pattern that are in `also` too, which may name the inputs of `more` after the pattern's own."""
    found = {id(term): _both(term, also) for term in pattern.terms}
    terms = tuple(found[id(term)] for term in pattern.terms)
    return replace(pattern, terms=terms, inputs=(*pattern.inputs, *more))


def _both(term: Term, also: Term) -> Term:
    return Intersection((*term.terms, also) if isinstance(term, Intersection) else (term, also))
