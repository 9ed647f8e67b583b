"""What `profile` does not take, and that it leaves a model as it was."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from test_transformers_profile import PUNCTUATION, SPECIAL, llama, prompt
from torch import nn

from sparsec.diagnostics.model import CallError
from sparsec.integrations.transformers import apply, profile, remove

pytestmark = pytest.mark.kernels

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no ids": ({"special": None}, "expected tokenizer=, or special= and punctuation="),
    "recovery": ({"recovery": 0.0}, "expected recovery above 0 and up to 1, got 0.0"),
    "percent": ({"recovery": 95}, "expected recovery above 0 and up to 1, got 95"),
    "nan": ({"recovery": math.nan}, "expected recovery above 0 and up to 1, got nan"),
    "local": ({"local": -0.1}, "expected local from 0 to 1"),
    "frequent": ({"frequent": 30}, "expected frequent from 0 to 1"),
    "an id": ({"special": [-1]}, "expected an id of special of at least 0"),
    "a name": ({"punctuation": ["."]}, "expected an integer for an id of punctuation"),
    "no tokens": ({"input_ids": torch.zeros(1, 0, dtype=torch.int64)}, "expected input_ids"),
    "floats": ({"input_ids": torch.zeros(1, 3)}, "expected input_ids"),
    "unknown ids": ({"input_ids": [1, 97]}, "expected ids from 0 to 96, got 1 to 97"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_are_refused(case: str) -> None:
    changes, message = REFUSED[case]
    arguments = {"input_ids": prompt(), "special": SPECIAL, "punctuation": PUNCTUATION, **changes}
    with pytest.raises(CallError, match=message.replace("(", r"\(")):
        profile(llama(), arguments.pop("input_ids"), **arguments)


def test_models_that_are_refused() -> None:
    model, ids = llama(), prompt()
    given = {"special": SPECIAL, "punctuation": PUNCTUATION, "target": "torch"}
    apply(model, "pattern p { causal attend full }", target="torch")
    with pytest.raises(CallError, match=r"got one with a pattern; remove\(model\) takes it out"):
        profile(model, ids, **given)
    profile(remove(model), ids, **given)
    with pytest.raises(CallError, match="expected a model of transformers"):
        profile(nn.Linear(2, 2), ids, **given)


def test_the_model_is_as_it_was() -> None:
    model, ids = llama(), prompt()
    before = (model.config._attn_implementation, model.training, dict(model._forward_pre_hooks))
    model.train()
    profile(model, ids, special=SPECIAL, punctuation=PUNCTUATION, target="torch")
    assert model.training
    model.eval()
    assert (model.config._attn_implementation, model.training, dict(model._forward_pre_hooks)) == before
    assert not model.get_decoder()._forward_pre_hooks
