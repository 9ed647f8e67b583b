"""The public strategies draw every term and operator, and texts that mean what was drawn."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass, replace

import torch
from hypothesis import given, note
from hypothesis import strategies as st
from torch import Tensor
from vacuity import examples, wanted

import sparsec
from sparsec.reference.mask import mask
from sparsec.runtime.inputs.checks import flat_inputs
from sparsec.sema import model
from sparsec.sema.builtins import TERMS
from sparsec.sema.inputs import UNITS, settled
from sparsec.sema.model import Documents, InputKind, InputUnit, ResolvedPattern
from sparsec.sema.record import heads_data, heads_of
from sparsec.sema.shapes import Sizes
from sparsec.testing import patterns, shapes, sparse_text
from sparsec.testing.drawn import Source
from sparsec.testing.inputs import drawn_inputs
from sparsec.testing.strategies import Shape, sources_with_meaning

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


def test_a_source_with_inputs_resolves_to_the_pattern_that_was_drawn() -> None:
    @examples(TEXTS)
    @given(sources_with_meaning(scored=True, inputs=True))
    def check(drawn: tuple[Source, ResolvedPattern]) -> None:
        source, meaning = drawn
        note(source.text)
        resolved = sparsec.parse(source.text).pattern().resolve(source.heads, source.kv_heads)
        assert without_origins(resolved) == meaning
        assert heads_of(json.loads(json.dumps(heads_data(resolved)))) == resolved

    check()


def test_tensors_of_inputs_are_right_and_their_text_means_the_same() -> None:
    @examples(TEXTS // 2)
    @given(patterns(inputs=True), shapes(max_queries=40, max_keys=90), st.integers(1, 2), st.integers(0, 2**16))
    def check(pattern: ResolvedPattern, shape: Shape, batch: int, seed: int) -> None:
        drawn = drawn_inputs(pattern, batch=batch, n_q=shape.n_q, n_k=shape.n_k, q_offset=shape.q_offset, seed=seed)
        sizes = Sizes(batch, pattern.heads, pattern.kv_heads, shape.n_q, shape.n_k, shape.n_k, shape.q_offset)
        declared = settled(pattern.inputs, pattern.block)
        at_least_0 = {name: value for name, value in drawn.items() if kinds(pattern)[name] is InputKind.LENGTH}
        for value in at_least_0.values():
            assert isinstance(value, Tensor)
            value.clamp_(0, 2**29)
        flat_inputs(declared, drawn, sizes, torch.zeros(1), block=pattern.block)
        seen = mask(pattern, shape.n_q, shape.n_k, shape.q_offset, inputs=drawn)
        assert seen.shape[1:] == (pattern.heads, shape.n_q, shape.n_k)[: seen.dim() - 1] or not pattern.inputs
        again = sparsec.parse(sparse_text(pattern)).pattern().resolve()
        assert torch.equal(mask(again, shape.n_q, shape.n_k, shape.q_offset, inputs=drawn), seen)
        wild = drawn_inputs(
            pattern, batch=batch, n_q=shape.n_q, n_k=shape.n_k, q_offset=shape.q_offset, seed=seed, wild=True
        )
        flat_inputs(declared, wild, sizes, torch.zeros(1))

    check()


def kinds(pattern: ResolvedPattern) -> dict[str, InputKind]:
    return {decl.name: decl.kind for decl in pattern.inputs}


def test_every_kind_of_input_is_drawn() -> None:
    seen: set[tuple[InputKind, InputUnit]] = set()
    tensors: set[str] = set()

    @examples(TEXTS)
    @given(patterns(scored=True, inputs=True), st.integers(0, 2**16))
    def check(pattern: ResolvedPattern, seed: int) -> None:
        seen.update((decl.kind, decl.unit) for decl in pattern.inputs)
        drawn = drawn_inputs(pattern, batch=2, n_q=9, n_k=40, q_offset=31, seed=seed)
        for value in drawn.values():
            for tensor in value if isinstance(value, tuple) else (value,):
                tensors.add(str(tensor.dtype))
                tensors.add(f"contiguous {tensor.is_contiguous()}")
                tensors.add(f"batch {tensor.shape[0]}")
                tensors.add(f"empty {not tensor.numel()}")

    check()
    assert seen == {(kind, unit) for kind in InputKind for unit in (InputUnit.TOKENS, *UNITS.get(kind, ()))}
    assert tensors == {
        *("torch.int32", "torch.int64", "torch.bool", "torch.float32", "batch 1", "batch 2"),
        *("contiguous True", "contiguous False", "empty True", "empty False"),
    }


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
