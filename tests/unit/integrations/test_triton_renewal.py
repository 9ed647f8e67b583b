"""In Triton's interpreter: a FastGen program decodes as a masked dense model with each step's frequent keys."""

from __future__ import annotations

import pytest
from test_transformers_profile import generated, llama, mixed, prompt
from test_transformers_renewal import check_steps
from triton_harness import in_interpreter, interpreted, passes_in_the_interpreter

from sparsec.integrations.transformers import apply

pytestmark = pytest.mark.kernels


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


@in_interpreter
def test_new_tokens_become_frequent() -> None:
    model, ids = llama(), prompt()
    program = mixed(model, ids)
    apply(model, program, target="triton")
    assert check_steps(program, ids[0, :9], generated(model, ids[:, :9], 10))
