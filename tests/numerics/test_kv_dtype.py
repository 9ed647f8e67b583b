"""Caches that store keys and values in fewer bits: attention to what `from_stored` gives, on cpu and torch alike."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.backends.absent import no_stored
from sparsec.backends.cpu.kernel import has_compiler
from sparsec.diagnostics.model import CallError
from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.kv.stored import from_stored, to_stored, width_of
from sparsec.runtime.module import SparseAttention

HEADS, GROUPS, DIM, VALUE_DIM, TOKENS = 4, 2, 72, 20, 160
CHUNKS = (90, 1, 3, 1, 1, 1, 63)
NAN, INF = float("nan"), float("inf")
PATTERNS = {
    "plain": "attend sink(4) | window(40)",
    "kept": "input kept : tokens attend window(20) | kept",
    "weighed": "input counts : weights key_bias counts alibi attend full",
    "listed": "input picks : rows attend window(30) | picks",
}
TARGETS = ["torch", pytest.param("cpu", marks=pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler"))]
STORED = [
    ("float32", "int8"),
    ("float32", "bfloat16"),
    ("float32", "float16"),
    ("bfloat16", "int8"),
    ("float16", "int8"),
]
ERROR = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 5e-3}
"""Of outputs of a few hundred unit-normal values, by the dtype of the calls."""
pytestmark = pytest.mark.filterwarnings("ignore:the cache keeps every key")


@cache
def module(name: str, target: str, dtype: str) -> SparseAttention:
    text = f"pattern p {{ heads {HEADS} kv {GROUPS} causal {PATTERNS[name]} }}"
    return sparsec.compile(
        text, head_dim=DIM, value_dim=VALUE_DIM, dtype=getattr(torch, dtype), target=target, device="cpu"
    )


def drawn(dtype: torch.dtype, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (HEADS, DIM), (GROUPS, DIM), (GROUPS, VALUE_DIM)
    q, k, v = (torch.randn(batch, heads, TOKENS, dim, generator=generator) for heads, dim in shapes)
    k *= torch.rand(batch, GROUPS, TOKENS, 1, generator=generator) * 2  # rows of their own scale
    return q.to(dtype), k.to(dtype), v.to(dtype)


def given(name: str, now: slice) -> dict[str, Tensor] | None:
    """What inputs say of these tokens, and of their keys."""
    generator = torch.Generator().manual_seed(1)
    of = {
        "kept": torch.rand(1, HEADS, TOKENS, generator=generator) < 0.5,
        "counts": torch.randn(1, HEADS, TOKENS, generator=generator),
        "picks": torch.rand(1, 1, TOKENS, TOKENS, generator=generator).argsort(-1)[..., :30],
    }
    names = {"kept": ("kept",), "weighed": ("counts",), "listed": ("picks",)}.get(name, ())
    return {each: of[each][:, :, now] for each in names} or None


def left(length: int) -> Tensor:
    """The marks that stay of so many tokens, bool [1, H, length]."""
    marks = given("kept", slice(0, length))
    assert marks is not None
    return marks["kept"] & (torch.arange(length) % 3 != 0)


def walk(
    attn: SparseAttention, name: str, held: KVCache, tensors: tuple[Tensor, Tensor, Tensor], *, weighs: bool
) -> tuple[Tensor, Tensor]:
    """Outputs of all calls, and masses if it `weighs`; where keys are kept, some marks go on the way."""
    q, k, v = tensors
    outs, masses, start = [], torch.zeros(len(q), HEADS, TOKENS), 0
    for n, count in enumerate(CHUNKS):
        now = slice(start, start + count)
        call = q[:, :, now], k[:, :, now], v[:, :, now]
        found = attn(*call, cache=held, inputs=given(name, now), return_mass=weighs)
        outs.append(found[0] if weighs else found)
        if weighs:
            masses[..., : found[1].shape[-1]] += found[1]
        start += count
        if n == 2 and name == "kept":
            held.keep("kept", left(start))
    return torch.cat(outs, 2).float(), masses


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("dtype", "kv_dtype"), STORED)
def test_attention_is_to_the_keys_as_they_are_stored(dtype: str, kv_dtype: str, target: str) -> None:
    attn, weighs = module("plain", target, dtype), (dtype, kv_dtype) == ("float32", "int8")
    held = attn.new_cache(2, TOKENS, kv_dtype=kv_dtype)
    assert held.kv_dtype == getattr(torch, kv_dtype)
    out, mass = walk(attn, "plain", held, drawn(attn.dtype), weighs=weighs)
    q, *rest = drawn(attn.dtype)
    k, v = (from_stored(to_stored(each, held.kv_dtype), torch.float32) for each in rest)
    exact = module("plain", "reference", "float32")
    wanted = exact(q.float(), k, v)
    assert (out - wanted).abs().max() < ERROR[dtype]
    assert (exact(q.float(), *(each.float() for each in rest)) - wanted).abs().max() > ERROR[dtype]
    if weighs:
        dense = module("plain", "torch", "float32")
        assert torch.allclose(mass, dense(q.float(), k, v, return_mass=True)[1], atol=1e-4)


@pytest.mark.parametrize("name", ["kept", "weighed", "listed"])
@pytest.mark.parametrize("target", TARGETS)
def test_inputs_see_the_same(name: str, target: str) -> None:
    attn, plain = module(name, target, "float32"), module(name, "torch", "float32")
    held, beside = attn.new_cache(2, TOKENS, kv_dtype="int8"), plain.new_cache(2, TOKENS)
    q, *rest = drawn(torch.float32)
    k, v = (from_stored(to_stored(each, torch.int8), torch.float32) for each in rest)
    weighs = name == "weighed"
    out, mass = walk(attn, name, held, (q, rest[0], rest[1]), weighs=weighs)
    wanted, masses = walk(plain, name, beside, (q, k, v), weighs=weighs)
    assert (out - wanted).abs().max() < ERROR["float32"]
    assert torch.allclose(mass, masses, atol=1e-4)


@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
@pytest.mark.parametrize("kv_dtype", ["int8", "bfloat16", "float16"])
def test_both_targets_store_the_same_bytes(kv_dtype: str) -> None:
    q, k, v = drawn(torch.float32)
    k[0, 0, -5], k[0, 0, -6, 3], k[0, 0, -7, 4], k[0, 0, -8] = 0, NAN, -INF, 1e-42
    v[0, 1, -9], v[0, 1, -10, 0] = 3e38, -3e38
    arenas = []
    for target in ("cpu", "torch"):
        attn = module("plain", target, "float32")
        held = attn.new_cache(2, TOKENS, kv_dtype=kv_dtype)
        attn(q, k, v, cache=held)
        arenas.append((held.keys, held.values))
    for ours, theirs in zip(*arenas, strict=True):
        same = ours.view(torch.uint8) == theirs.view(torch.uint8)
        nans = from_stored(ours, torch.float32).isnan() & from_stored(theirs, torch.float32).isnan()
        assert bool(same.all(-1).logical_or(nans.any(-1)).all()) and bool(ours.view(torch.uint8).any())


@pytest.mark.parametrize("kv_dtype", ["int8", "bfloat16", "float16"])
def test_the_error_is_as_stated(kv_dtype: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 64, generator=generator) * torch.logspace(-3, 3, 1000)[:, None]
    dtype = getattr(torch, kv_dtype)
    rows = to_stored(x, dtype)
    assert rows.shape == (1000, width_of(64, dtype)) and rows.dtype == dtype
    error = (from_stored(rows, torch.float32) - x).abs()
    if dtype == torch.int8:
        assert bool((error <= x.abs().amax(-1, keepdim=True) / 254 * 1.0001).all())
    else:
        assert bool((error <= x.abs().clamp(min=torch.finfo(dtype).tiny) * torch.finfo(dtype).eps).all())
    again = to_stored(from_stored(rows, torch.float32), dtype)
    assert torch.equal(from_stored(again, torch.float32), from_stored(rows, torch.float32)), (
        "storing twice changes nothing"
    )


def test_a_row_that_is_not_finite_is_nan_and_a_tiny_one_is_zero() -> None:
    x = torch.randn(5, 16)
    x[1, 2], x[2, 3], x[3], x[4] = NAN, -INF, 1e-40, 0
    found = from_stored(to_stored(x, torch.int8), torch.float32)
    assert bool(found[0].isfinite().all() and found[1:3].isnan().all()) and not bool(found[3:].any())


@pytest.mark.parametrize("target", TARGETS)
def test_what_no_query_sees_has_no_effect(target: str) -> None:
    attn = module("plain", target, "float32")
    q, k, v = drawn(torch.float32)
    whole, part = (attn.new_cache(2, TOKENS, kv_dtype="int8") for _ in range(2))
    spoilt = k.clone(), v.clone()
    for each in spoilt:
        each[:, :, 10:60] = NAN  # before the window, and after the sink
    first, last = slice(0, 120), slice(120, 122)
    attn(q[:, :, first], k[:, :, first], v[:, :, first], cache=whole)
    attn(q[:, :, first], spoilt[0][:, :, first], spoilt[1][:, :, first], cache=part)
    now = q[:, :, last], k[:, :, last], v[:, :, last]
    assert torch.equal(attn(*now, cache=whole), attn(*now, cache=part))


@pytest.mark.parametrize("target", TARGETS)
def test_caches_are_copied_and_taken_apart(target: str) -> None:
    attn = module("plain", target, "float32")
    q, k, v = drawn(torch.float32)
    start = slice(0, 100)
    held = attn.new_cache(2, rollback=8, kv_dtype=torch.int8)
    attn(q[:, :, start], k[:, :, start], v[:, :, start], cache=held)
    now = q[:, :, 100:104], k[:, :, 100:104], v[:, :, 100:104]
    copied = held.fork()
    wanted = attn(*now, cache=copied)
    copied.truncate(100)
    assert torch.equal(attn(*now, cache=copied), wanted)
    turned = held.fork()
    turned.reorder([1, 0])
    assert torch.equal(attn(*(each.flip(0) for each in now), cache=turned).flip(0), wanted)
    loaded = attn.new_cache(2, rollback=8, kv_dtype="int8")
    loaded.load_state_dict(held.state_dict())
    assert torch.equal(attn(*now, cache=loaded), wanted)
    held.release(0)
    alone = attn.new_cache(1, rollback=8, kv_dtype="int8")
    attn(q[:1, :, start], k[:1, :, start], v[:1, :, start], cache=alone)
    held.admit(0, alone)
    assert torch.equal(attn(*now, cache=held), wanted)
    with pytest.raises(CallError, match=r"expected a sequence stored as torch\.int8, got one stored as torch\.float32"):
        held.release(0)
        held.admit(0, attn.new_cache(1, rollback=8))
    with pytest.raises(CallError, match=r"expected keys torch\.int8"):
        held.load_state_dict(attn.new_cache(2, held.max_len, rollback=8).state_dict())


def test_merged_keys_are_stored_as_the_others() -> None:
    text = "pattern p { heads 2 kv 1 input kept : tokens input counts : weights key_bias counts causal attend kept }"
    attn = sparsec.compile(text, head_dim=16, target="torch")
    held, plain = attn.new_cache(1, 64, kv_dtype="int8"), attn.new_cache(1, 64)
    q, k, v = torch.randn(1, 2, 40, 16), torch.randn(1, 1, 40, 16), torch.randn(1, 1, 40, 16)
    says = {"kept": torch.ones(1, 40, dtype=torch.bool), "counts": torch.zeros(1, 1, 40)}
    labels = torch.arange(40)[None] // 4
    for each in (held, plain):
        attn(q, k, v, cache=each, inputs=says)
        each.merge("kept", labels)
    assert held.kept is not None and plain.kept is not None
    assert held.kept.keys.dtype == torch.int8
    count = int(held.kept.lists[0, 0, 2])
    ours, theirs = from_stored(held.kept.keys[:count], torch.float32), plain.kept.keys[:count]
    assert (ours - theirs).abs().max() < theirs.abs().max() / 50


def test_other_dtypes_and_kernels_are_refused() -> None:
    attn = module("plain", "torch", "float32")
    with pytest.raises(CallError, match=r"expected kv_dtype None or one of float32, bfloat16, float16, int8 for torch"):
        attn.new_cache(1, 64, kv_dtype="int4")
    with pytest.raises(CallError, match=r"expected kv_dtype None or one of bfloat16, int8 for torch.bfloat16 calls"):
        module("plain", "torch", "bfloat16").new_cache(1, 64, kv_dtype=torch.float16)
    with pytest.raises(CallError, match=r"expected kv_dtype None for these kernels, .* got int8"):
        no_stored("int8", lists=False)
    assert attn.new_cache(1, 64, kv_dtype="float32").kv_dtype == torch.float32
