"""When a model's kernels are built: equal layers' once, and all layers' before the first call that needs them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import transformers

from sparsec.backends.cpu import backward as cpu_backward
from sparsec.backends.cpu import cached as cpu_cached
from sparsec.backends.cpu import kernel as cpu
from sparsec.integrations.transformers import apply, hooks
from sparsec.runtime.build import at_once

pytestmark = pytest.mark.kernels

LAYERS = """
pattern near(n = 4) { causal attend window(n) }
model m { layers 4 where l == 3 use near(n = 9) where l == 2 use near(n = 6) otherwise use near() }
"""


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that were asked for, in order; every build is a real one."""
    sources: list[str] = []
    honest, lock = cpu.compile_shared, threading.Lock()

    def noted(source: str, **options: Any) -> Any:
        with lock:
            sources.append(source)
        return honest(source, **options)

    for module in (cpu, cpu_backward, cpu_cached):
        monkeypatch.setattr(module, "compile_shared", noted)
    monkeypatch.setattr(at_once, "cores", lambda: 3)
    return sources


def model() -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=32, **sizes)).eval()


def test_equal_layers_share_a_build_and_no_call_waits_for_one(built: list[str]) -> None:
    applied, ids = apply(model(), LAYERS, target="cpu"), torch.arange(12)[None]
    assert len(built) == len(set(built)) == 3, "three kinds among four layers"
    applied(ids, use_cache=False)
    assert len(built) == 3, "in eval mode nobody asks for gradients"
    with torch.no_grad():
        applied(ids, use_cache=True)
    assert len(built) == len(set(built)) == 6
    applied.train()(ids, use_cache=False).logits.sum().backward()
    assert len(built) == len(set(built)) == 9


def test_all_layers_kernels_are_there_before_the_first_layer_attends(
    built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = LAYERS.replace("window(n)", "window(n + 20)")  # a process keeps what it has loaded
    applied, ids = apply(model(), others, target="cpu"), torch.arange(12)[None]
    before = []

    def attend(*arguments: Any, **options: Any) -> Any:
        before.append(len(built))
        raise RuntimeError("far enough")

    monkeypatch.setattr(type(applied.model.layers[0].self_attn), "forward", attend)
    for training, cached in ((False, True), (True, False)):
        with pytest.raises(RuntimeError, match="far enough"):
            applied.train(training)(ids, use_cache=cached)
    assert before == [6, 9]


def test_what_is_compiled_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Shown:
        def __enter__(self) -> Any:
            return told.append

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(hooks, "progress", Shown)
    apply(model(), LAYERS, target="torch")
    assert told == [f"compiled {n} of 3 kinds of layers" for n in (0, 1, 2, 3)]
