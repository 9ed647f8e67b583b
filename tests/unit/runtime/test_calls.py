"""What a caller gives to `compile`, to a module and to its cache: taken as it is meant, or named in a CallError."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import sparsec
from sparsec.runtime.module import SparseAttention

TEXT = "pattern p(n = 20) { heads 4 kv 2  causal  attend window(n) | sink(3) }"


def compiled(pattern: Any = TEXT, **changed: Any) -> SparseAttention:
    return sparsec.compile(pattern, **{"head_dim": 16, "target": "torch", **changed})


@pytest.fixture(scope="module")
def attn() -> SparseAttention:
    return compiled()


def tensors(new: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, new, 16, generator=generator) for heads in (4, 2, 2))
    return q, k, v


def refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(sparsec.CallError, match=re.escape(message)):
        call()


def test_a_program_with_one_pattern_is_taken(attn: SparseAttention) -> None:
    program = sparsec.parse(TEXT)
    assert torch.equal(compiled(program)(*tensors()), attn(*tensors()))
    assert compiled(program, params={"n": 30}).plan == compiled(program.pattern(n=30)).plan != attn.plan
    two = sparsec.parse(TEXT + TEXT.replace("pattern p(n = 20)", "pattern long(n = 30)"))
    assert compiled(two, name="long").plan == compiled(program.pattern(n=30)).plan
    refused(lambda: compiled(two), "expected the name of a pattern, one of: p, long; got no name")


def test_what_is_no_pattern() -> None:
    both = sparsec.parse(TEXT + TEXT.replace("pattern p", "pattern other") + " model m { layers 2  otherwise use p }")
    model = both.model()
    says = "expected the name of a pattern, one of: p, other; got {}; Program.model(...) gives the model m"
    refused(lambda: compiled(both), says.format("no name"))
    refused(lambda: compiled(both, name="m"), says.format("'m'"))
    refused(lambda: both.model("p"), "one of: m; got 'p'; Program.pattern(...) gives the patterns p, other")
    for given in (model, model.layer(0).resolve(), None, 3):
        refused(
            lambda given=given: compiled(given),
            f"program.pattern(name) and model.layer(n) give), a Program, a path or a text, got {type(given).__name__}",
        )
    refused(lambda: compiled(params=["n=5"]), "expected params of type Mapping, got list")
    refused(lambda: compiled(model.layer(0), name="p"), "expected name= and params= without a Pattern")


@pytest.mark.parametrize("device", ["foo", "cuda:77", 77, "meta", 1.5])
def test_a_device_that_is_not_there(attn: SparseAttention, device: Any) -> None:
    message = f"expected a device of this machine, such as cpu or cuda:0, got {device!r}"
    refused(lambda: compiled(device=device), message)
    refused(lambda: attn.new_cache(device=device), message)


@pytest.mark.kernels
def test_the_cpu_target_has_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsec.runtime import compile as module

    monkeypatch.setattr(module, "device_of", torch.device)
    refused(lambda: compiled(target="cpu", device="cuda"), "expected a CPU for target 'cpu', got device cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert compiled(target="cpu").new_cache().keys.is_cpu


@pytest.mark.parametrize("given", [True, 16.0, "16", None, torch.ones(2)])
def test_integers_are_integers(attn: SparseAttention, given: Any) -> None:
    for name, call in (
        ("head_dim", lambda: compiled(head_dim=given)),
        ("seq_len", lambda: attn.explain(given)),
        ("batch_size", lambda: attn.new_cache(given)),
        ("max_len", lambda: attn.new_cache().grow(given)),
        ("rollback", lambda: attn.new_cache(rollback=given)),
        ("layer", lambda: sparsec.parse(TEXT + " model m { layers 2  otherwise use p }").model().layer(given)),
        ("n_q", lambda: sparsec.parse(TEXT).pattern().mask(given, 4)),
        ("n_k", lambda: sparsec.parse(TEXT).pattern().mask(4, given)),
        ("embed_dim", lambda: sparsec.nn.SelfAttention(given, 4, pattern=TEXT)),
    ):
        refused(call, f"expected an integer for {name}, got {given!r}")
    if given is not None:  # a cache that grows
        refused(lambda: attn.new_cache(max_len=given), f"expected an integer for max_len, got {given!r}")
    if given is not None:
        refused(lambda: attn(*tensors(), q_offset=given), f"expected an integer for q_offset, got {given!r}")


def test_integers_have_their_range(attn: SparseAttention) -> None:
    refused(lambda: attn.explain(0), "expected seq_len of at least 1, got 0")
    refused(lambda: attn.explain(-1), "expected seq_len of at least 1, got -1")
    refused(lambda: attn.new_cache(max_len=1 << 29), f"expected max_len between 1 and {(1 << 29) - 1}, got {1 << 29}")
    assert compiled(head_dim=torch.tensor(16)).head_dim == 16
    assert torch.equal(attn(*tensors(), q_offset=torch.tensor(3)), attn(*tensors(), q_offset=3))


def test_inputs_are_none(attn: SparseAttention) -> None:
    q, k, v = tensors()
    for none in (None, {}):
        assert torch.equal(attn(q, k, v, inputs=none), attn(q, k, v))
    refused(
        lambda: attn(q, k, v, inputs={"near": q}), "expected no inputs, since the pattern declares none, got 'near'"
    )
    refused(lambda: attn(q, k, v, inputs=q), "expected inputs as a mapping of names to tensors, got Tensor")


def test_what_is_no_tensor(attn: SparseAttention) -> None:
    q, k, v = tensors()
    refused(lambda: attn(q.numpy(), k, v), "expected q, k and v of type Tensor, got ndarray, Tensor, Tensor")
    refused(lambda: attn(q, k, None), "expected q, k and v of type Tensor, got Tensor, Tensor, NoneType")
    refused(lambda: attn(q.to("meta"), k, v), "expected tensors on a CPU or a GPU, got q on meta")
    refused(lambda: attn(q, k.to("meta"), v), "expected k on cpu like q, got meta")
    refused(lambda: attn(q, k, v, cache=3), "expected cache of type KVCache, got int")
    documents = compiled(TEXT.replace("causal", "causal  documents"))
    refused(lambda: documents(q, k, v, cu_seqlens=[0, 9]), "expected cu_seqlens of type Tensor, got list")
    for lengths in ([1.5], "a", [None], torch.ones(1)):
        refused(
            lambda lengths=lengths: attn(q, k, v, cache=attn.new_cache(), lengths=lengths),
            "expected lengths of integers, got ",
        )


def test_what_is_no_path() -> None:
    for load in (sparsec.load, sparsec.load_compiled):
        refused(lambda load=load: load(None), "expected a path, got None")
    refused(lambda: sparsec.parse(TEXT.encode()), "expected text of type str, got bytes")
    refused(
        lambda: sparsec.parse(TEXT).model(),
        "expected a file with a model, got one without; Program.pattern(...) gives the pattern p",
    )


def test_a_pickled_module_is_the_same(tmp_path: Path) -> None:
    attn = compiled(TEXT.replace("causal", "causal  learned_sink"))
    assert attn.sink is not None
    torch.nn.init.normal_(attn.sink)
    torch.save(attn, tmp_path / "attn.pt")
    for again in (pickle.loads(pickle.dumps(attn)), torch.load(tmp_path / "attn.pt", weights_only=False)):
        assert torch.equal(again(*tensors()), attn(*tensors()))
        with torch.no_grad():
            assert torch.equal(again(*tensors(), cache=again.new_cache()), attn(*tensors(), cache=attn.new_cache()))
        assert again.explain(100) == attn.explain(100)
