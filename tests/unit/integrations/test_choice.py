"""What a host's model is given: a program, a pattern, a model, a path or a text; and its parameters as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sparsec
from sparsec.integrations.choice import origin_of, params_as_json, patterns_of

TEXT = """
pattern p(near = 8, groups = [0], kept = (0 .. 4), wide = true, far = 2b) {
    heads 4
    causal
    where h in groups and wide attend window(near) | columns(kept)
    otherwise                  attend window(far)
}
pattern q { causal  attend full }
model m(near = 8) {
    where l == 0 use p(near = near)
    otherwise    use q
}
"""
GIVEN: list[dict[str, Any]] = [
    {"near": 3},
    {"near": np.int64(3)},
    {"near": torch.tensor(3)},
    {"near": "3", "far": "4b"},
    {"groups": (1, range(2, 4))},
    {"groups": [np.int32(1), 2]},
    {"groups": np.array([1, 3])},
    {"groups": torch.tensor([1, 3])},
    {"kept": range(2, 6)},
    {"kept": range(-6, -2)},
    {"kept": "2.."},
    {"wide": np.bool_(True)},
]


def terms(pattern: sparsec.Pattern) -> tuple[Any, ...]:
    return pattern.resolve(4).terms


@pytest.mark.parametrize("given", GIVEN, ids=str)
def test_parameters_mean_the_same_after_they_were_saved(given: dict[str, Any]) -> None:
    program = sparsec.parse(TEXT)
    read = json.loads(json.dumps(params_as_json(given)))
    assert terms(program.pattern("p", **read)) == terms(program.pattern("p", **given))


def test_a_pattern_or_a_model_stands_for_its_program_and_its_name(tmp_path: Path) -> None:
    program = sparsec.parse(TEXT)
    (whole,) = set(patterns_of(origin_of(program.pattern("p", near=3), None, {}), 5))
    assert terms(whole) == terms(program.pattern("p", near=3)) != terms(program.pattern("p"))
    first, *others = patterns_of(origin_of(program.model("m", layers=2, near=3), None, {}), 3)
    assert terms(first) == terms(whole) and [each.name for each in others] == ["q", "q"]
    (tmp_path / "a.sparse").write_text(TEXT)
    for given in (program, TEXT, tmp_path / "a.sparse", str(tmp_path / "a.sparse")):
        assert terms(patterns_of(origin_of(given, "p", {"near": 3}), 1)[0]) == terms(whole)


def test_what_is_no_program_is_refused_in_one_sentence() -> None:
    program = sparsec.parse(TEXT)
    with pytest.raises(sparsec.CallError, match="name= and params= without a Pattern"):
        origin_of(program.pattern("p"), "p", {})
    with pytest.raises(sparsec.CallError, match="name= and params= without a Model"):
        origin_of(program.model("m", layers=2), None, {"near": 3})
    for made in (program.model("m", layers=2).layer(0), program.pattern("q").in_documents()):
        with pytest.raises(sparsec.CallError, match="made of a pattern or a model"):
            origin_of(made, None, {})
    with pytest.raises(sparsec.CallError, match="expected a Program, a Pattern, a Model, a path or a text, got int"):
        origin_of(3, None, {})  # type: ignore[arg-type]
