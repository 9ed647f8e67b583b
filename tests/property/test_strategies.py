"""The public strategies draw every term and operator, and texts that mean what was drawn."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import torch
from hypothesis import given, note
from vacuity import examples, wanted

import sparsec
from sparsec.reference.mask import mask
from sparsec.sema import model
from sparsec.sema.builtins import TERMS
from sparsec.sema.model import Documents, ResolvedPattern
from sparsec.testing import patterns, shapes, sparse_text
from sparsec.testing.strategies import Shape, Source, sources_with_meaning

TEXTS = wanted(200, at_night=15_000)


def without_origins(value: object) -> object:
    """The value with every `At` replaced by its term."""
    if isinstance(value, model.At):
        return without_origins(value.term)
    if isinstance(value, tuple):
        return tuple(without_origins(item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: without_origins(getattr(value, field.name)) for field in fields(value)})
    return value


def test_a_source_resolves_to_the_pattern_that_was_drawn() -> None:
    @examples(TEXTS)
    @given(sources_with_meaning(scored=True))
    def check(drawn: tuple[Source, ResolvedPattern]) -> None:
        source, meaning = drawn
        note(source.text)
        resolved = sparsec.parse(source.text).pattern().resolve(source.heads, source.kv_heads)
        assert without_origins(resolved) == meaning

    check()


def test_the_text_of_a_pattern_resolves_to_its_mask() -> None:
    @examples(TEXTS // 2)
    @given(patterns(scored=True), shapes())
    def check(scored: ResolvedPattern, shape: Shape) -> None:
        text = sparse_text(scored)
        note(text)
        again = sparsec.parse(text).pattern().resolve()
        assert (again.score, again.documents) == (scored.score, scored.documents)
        again, pattern = (replace(heads, documents=Documents.NONE) for heads in (again, scored))
        counts = shape.n_q, shape.n_k, shape.q_offset
        assert torch.equal(mask(again, *counts), mask(pattern, *counts))

    check()


def test_every_term_and_operator_is_drawn() -> None:
    seen: set[str] = set()

    @examples(TEXTS)
    @given(patterns())
    def check(pattern: ResolvedPattern) -> None:
        seen.update(word for word in repr(pattern).replace("(", " ").replace("=", " ").split() if word[0].isupper())

    check()
    operators = {"Union", "Intersection", "Difference", "Complement"}
    leaves = {term.kind.__name__ for term in TERMS.values()}
    missing = (operators | leaves | {"Edge"}) - seen
    assert not missing
