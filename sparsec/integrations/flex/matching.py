"""What each head of each sequence sees of n positions -> the text of a pattern that sees it, in one of four ways.

Invariant: a text that is given says of every pair that was looked at what was seen; what lies beyond is its guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sparsec.integrations.flex.evidence import Bools, Ints, Square
from sparsec.integrations.flex.fitting import BLOCKS, Fit, below_diagonal, fit_head, reading_cost
from sparsec.integrations.flex.terms import term_shape
from sparsec.integrations.flex.wording import LENGTH_NAME, pattern_text, term_numbers
from sparsec.sema import model
from sparsec.sema.model import Documents, Term
from sparsec.sema.terms import parts_of

MOST_DOCUMENTS = 4
"""Documents at most, as a part of the positions: 1 in 4."""


@dataclass(frozen=True, slots=True)
class Looked:
    """masks: the distinct squares that were seen, bool [n, n]; of: int [batch, heads], which of them each is."""

    masks: tuple[Bools, ...]
    of: Ints

    @property
    def size(self) -> int:
        return len(self.masks[0])


@dataclass(frozen=True, slots=True)
class Match:
    """The text of a pattern, and what a call of it is given."""

    text: str
    cu_seqlens: tuple[int, ...] | None = None
    inputs: Mapping[str, Tensor] = field(default_factory=dict)


def matches(looked: Looked, name: str, groups: int | None) -> Iterator[Match]:
    """Plain terms; an input that differs between sequences; documents; documents that restart. Documents come first
    where the plain terms name positions, and there is less to read of what is seen within documents."""
    one = bool((looked.of == looked.of[0]).all())
    fits = _fits([_square(each) for each in looked.masks])
    whole = list((_plain if one else _by_length)(looked, fits, name, groups)) if _exact(fits) else []
    cuts = _cuts(np.logical_or.reduce(looked.masks)) if one else []
    if not 2 < len(cuts) <= looked.size // MOST_DOCUMENTS:
        yield from whole
        return
    bounds = np.asarray(cuts)
    document = np.searchsorted(bounds, np.arange(looked.size), side="right")
    inside = document[:, None] == document[None, :]
    within = _fits([_square(each, inside) for each in looked.masks])
    apart = list(_plain(looked, within, name, groups, Documents.SEPARATE, tuple(cuts))) if _exact(within) else []
    fewer = any(_names_positions(fit.term) for fit in fits) and _to_read(within) < _to_read(fits)
    yield from (*apart, *whole) if fewer else (*whole, *apart)
    overlaid = [_overlaid(each, cuts) for each in looked.masks]
    if all(each is not None for each in overlaid):
        restarted = _fits([each for each in overlaid if each is not None])
        if _exact(restarted):
            yield from _plain(looked, restarted, name, groups, Documents.RESTART, tuple(cuts))


def _exact(fits: Sequence[Fit]) -> bool:
    return all(fit.exact for fit in fits)


def _to_read(fits: Sequence[Fit]) -> int:
    return sum(reading_cost(fit.term) for fit in fits)


def _names_positions(term: Term) -> bool:
    return isinstance(term, model.Columns | model.Rows) or any(map(_names_positions, parts_of(term)))


def why_not(looked: Looked) -> str:
    """What the best terms leave unexplained of one square, in a sentence."""
    fits = _fits([_square(each) for each in looked.masks])
    which = next((at for at, fit in enumerate(fits) if not fit.exact), None)
    if which is None:
        return "no pattern: what is seen differs between sequences, and not in one length alone"
    fit, seen = fits[which], looked.masks[which]
    share = 1 - fit.wrong.sum() / max(int(seen.sum()), 1)
    i, j = (int(each[0]) for each in fit.wrong.nonzero())
    _, h = (int(each[0]) for each in (looked.of == which).nonzero())
    return (
        f"no pattern: unions of terms explain {max(share, 0):.1%} of the pairs that head {h} sees, and not query {i}, "
        f"key {j}, the first"
    )


def _square(seen: Bools, inside: Bools | None = None) -> Square:
    """Below the diagonal alone, if nothing above it is seen."""
    matters = np.ones_like(seen) if inside is None else inside
    if not np.triu(seen, 1).any():
        matters = np.tril(matters)
    return Square(matters, seen)


def _fits(squares: Sequence[Square]) -> list[Fit]:
    """With one block size for all that need one."""
    fits = [fit_head(each) for each in squares]
    sizes = list(dict.fromkeys(fit.block for fit in fits if fit.block is not None))
    if len(sizes) < 2:
        return fits
    for size in BLOCKS:
        again = [fit_head(square, (size,)) for square in squares]
        if all(fit.exact for fit in again):
            return again
    return [Fit(fit.term, fit.block, square.matters) for fit, square in zip(fits, squares, strict=True)]


def _plain(
    looked: Looked,
    fits: Sequence[Fit],
    name: str,
    groups: int | None,
    documents: Documents = Documents.NONE,
    bounds: tuple[int, ...] | None = None,
) -> Iterator[Match]:
    causal, of_masks = _within_causal(looked, fits)
    terms = [of_masks[which] for which in looked.of[0]]
    block = next((fit.block for fit in fits if fit.block is not None), None)
    for by_arms in (False, True):
        text = pattern_text(name, terms, groups, block=block, causal=causal, documents=documents, by_arms=by_arms)
        yield Match(text, bounds)


def _within_causal(looked: Looked, fits: Sequence[Fit]) -> tuple[bool, list[Term]]:
    """Whether no head looks ahead; the term of each mask, within `causal` or with it."""
    below = [not np.triu(each, 1).any() for each in looked.masks]
    if all(below):
        return True, [below_diagonal(fit.term) for fit in fits]
    return False, [_and_causal(fit.term) if causal else fit.term for causal, fit in zip(below, fits, strict=True)]


def _and_causal(term: Term) -> Term:
    term = below_diagonal(term)
    if isinstance(term, model.Full):
        return model.Causal()
    return term if isinstance(term, model.Nothing) else model.Intersection((model.Causal(), term))


def _by_length(looked: Looked, fits: Sequence[Fit], name: str, groups: int | None) -> Iterator[Match]:
    """Sequences, all of whose heads are alike, that differ in one number of tokens."""
    if (looked.of != looked.of[:, :1]).any() or any(fit.block is not None for fit in fits):
        return
    causal, of_masks = _within_causal(looked, fits)
    longest = max(of_masks, key=lambda term: len(term_numbers(term)))
    alike = [term for term in of_masks if term_shape(term) == term_shape(longest)]
    columns = list(zip(*map(term_numbers, alike), strict=True))
    varying = [at for at, of in enumerate(columns) if len({number.value for number in of}) > 1]
    varying = varying or [at for at, of in enumerate(columns) if _may_be_given(of[0].leaf, of[0].field)]
    if len(varying) != 1 or not _may_be_given(columns[varying[0]][0].leaf, columns[varying[0]][0].field):
        return
    lengths = [
        term_numbers(term)[varying[0]].value if term_shape(term) == term_shape(longest) else 0
        for term in (of_masks[which] for which in looked.of[:, 0])
    ]
    text = pattern_text(name, [longest], groups, causal=causal, length=varying[0])
    yield Match(text, None, {LENGTH_NAME: torch.tensor(lengths)})


def _may_be_given(leaf: Term, field_name: str) -> bool:
    if isinstance(leaf, model.Sink | model.Window):
        return field_name == "n"
    return isinstance(leaf, model.Columns | model.Rows)


def _cuts(seen: Bools) -> list[int]:
    """Where no pair reaches across, with 0 and n."""
    n = len(seen)
    either = seen | seen.T
    first = np.where(either.any(1), either.argmax(1), np.arange(n))
    lowest = np.minimum.accumulate(first[::-1])[::-1]
    return [0, *(t for t in range(1, n) if lowest[t] >= t), n]


def _overlaid(seen: Bools, cuts: Sequence[int]) -> Square | None:
    """The documents one upon the other, each from 0 on; None where they differ."""
    longest = max(stop - start for start, stop in pairwise(cuts))
    known, found = np.zeros((longest, longest), bool), np.zeros((longest, longest), bool)
    for start, stop in pairwise(cuts):
        size, own = stop - start, seen[start:stop, start:stop]
        if (known[:size, :size] & (found[:size, :size] != own)).any():
            return None
        known[:size, :size], found[:size, :size] = True, own
    return _square(found)
