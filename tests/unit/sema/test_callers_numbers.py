"""Parameters, head counts and layers that a caller gives as integers and arrays of NumPy and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import sparsec
from sparsec.diagnostics.model import CallError
from sparsec.program import Program
from sparsec.testing import sparse_text

FILE = """
param start = 4
pattern p(n = 8, wide = false, near = 2b, picks = [0], slopes = [1.0, 1.0, 1.0]) {
    heads 3
    causal
    alibi slopes
    where h in picks attend window(n) | sink(start)
    otherwise        attend window(near)
}
model m(first = 1) {
    where l < first     use q
    where l == L - 1    use q(n = L)
    otherwise           use q(n = 3)
}
pattern q(n = 64) { causal  attend window(n) }
"""


def program() -> Program:
    return sparsec.parse(FILE)


def texts(**params: Any) -> tuple[str, ...]:
    return tuple(sparse_text(program().pattern("p", **params).resolve()).split("\n"))


@pytest.mark.parametrize(
    ("name", "given", "same"),
    [
        *(("n", number, 5) for number in (np.int32(5), np.uint8(5), np.array(5), torch.tensor(5), np.int64(5))),
        ("start", torch.tensor(9, dtype=torch.int16), 9),
        ("picks", np.array([1]), [1]),
        ("picks", torch.tensor([0, 1]), [0, 1]),
        ("picks", torch.arange(2)[:1], [0]),
        ("picks", [np.int64(1), torch.tensor(0)], [0, 1]),
        ("picks", (np.array(1), range(1)), [0, 1]),
    ],
)
def test_a_number_is_the_same_from_any_library(name: str, given: Any, same: Any) -> None:
    assert texts(**{name: given}) == texts(**{name: same})
    for _, value in program().pattern("p", **{name: given})._binding.values:
        assert type(value) in (int, tuple)


def test_slopes_and_booleans() -> None:
    given = torch.tensor([0.5, 0.25, 0.125])
    assert program().pattern("p", slopes=given).resolve().score == (
        program().pattern("p", slopes=[0.5, 0.25, 0.125]).resolve().score
    )
    assert "True" in repr(program().pattern("p", wide=np.bool_(True)))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("n", np.float32(5)),
        ("n", torch.tensor([5])),
        ("n", np.array([[5]])),
        ("n", np.bool_(True)),
        ("n", torch.empty((), device="meta")),
        ("picks", np.array([[0, 1]])),
        ("picks", torch.tensor([0.5])),
        ("picks", np.array([True])),
        ("picks", np.arange(40_000)),
        ("slopes", np.array(["0.5"])),
        ("wide", np.int8(1)),
        ("n", np.array("5; import os")),
    ],
)
def test_what_is_no_value_of_the_type_is_refused(name: str, given: Any) -> None:
    with pytest.raises(CallError, match=f"parameter '{name}': expected "):
        program().pattern("p", **{name: given})


def test_counts_of_heads() -> None:
    pattern = program().pattern("q")
    found = pattern.resolve(np.int64(4), torch.tensor(2))  # type: ignore[arg-type]
    assert (type(found.heads), found.heads, found.kv_heads) == (int, 4, 2)
    assert pattern.resolve(4, 2) is found
    with pytest.raises(CallError, match="expected an integer for heads"):
        pattern.resolve(np.float64(4))  # type: ignore[arg-type]


def test_layers_that_the_caller_gives() -> None:
    layers = program().model("m", layers=5, first=2)
    assert [layers.layer(each).resolve(1).terms[0] for each in (0, 1)] == [layers.layer(0).resolve(1).terms[0]] * 2
    assert len(layers) == 5 and layers.layer(0) is layers.layer(1) and layers.layer(2) is layers.layer(3)
    assert "window(5)" in str(layers.layer(4).resolve(1).terms[0])
    assert len(program().model("m", layers=np.int32(3))) == 3  # type: ignore[arg-type]
    said = sparsec.parse("pattern p { causal attend full }\nmodel m { layers 3 use p }")
    assert len(said.model(layers=3)) == len(said.model()) == 3
    with pytest.raises(CallError, match="model 'm': expected layers=3, as its file says, got layers=4"):
        said.model(layers=4)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (None, "model 'm': expected layers=..., since its file gives none, got no layers"),
        (0, "expected layers from 1 to 4096, got 0"),
        (4097, "expected layers from 1 to 4096, got 4097"),
        (True, "expected an integer for layers, got True"),
        (2.0, "expected an integer for layers, got 2.0"),
    ],
)
def test_layers_that_are_none(layers: Any, message: str) -> None:
    with pytest.raises(CallError) as raised:
        program().model("m", layers=layers)
    assert message in str(raised.value)


def test_layers_that_leave_an_arm_out() -> None:
    with pytest.raises(sparsec.DiagnosticError, match="E409"):
        program().model("m", layers=1)
