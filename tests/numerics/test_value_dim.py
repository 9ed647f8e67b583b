"""Values of another width than keys: outputs and gradients against the reference, and a cache against the whole."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.reference.mask import mask
from sparsec.runtime.module import SparseAttention
from sparsec.testing.gradients import check_gradients
from sparsec.testing.probes import check_forward

pytestmark = pytest.mark.kernels
TEXT = """pattern p {
  heads 4 kv 2 block 16 causal softcap 20 learned_sink
  where h in [0, 1] attend window(40) | sink(4)
  where h in [2, 3] attend window(20) | stride(3b)
}"""
DIMS = ((24, 40), (40, 16), (16, 40), (17, 5), (1, 64), (192, 128))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@cache
def attention(target: str, head_dim: int, value_dim: int, dtype: torch.dtype = torch.float32) -> SparseAttention:
    attn = sparsec.compile(TEXT, head_dim=head_dim, value_dim=value_dim, dtype=dtype, target=target, device="cpu")
    assert attn.sink is not None
    torch.nn.init.normal_(attn.sink, generator=torch.Generator().manual_seed(1))
    return attn


def inputs(
    n_q: int, n_k: int, dims: tuple[int, int], dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n_q + n_k)
    shapes = (2, 4, n_q, dims[0]), (2, 2, n_k, dims[0]), (2, 2, n_k, dims[1])
    q, k, v = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return q, k, v


@pytest.mark.parametrize("dims", DIMS, ids=str)
@pytest.mark.parametrize("target", ["torch", "cpu"])
def test_outputs_and_gradients_are_those_of_the_reference(target: str, dims: tuple[int, int]) -> None:
    attn = attention(target, *dims)
    pattern, qkv = sparsec.parse(TEXT).pattern().resolve(), inputs(90, 130, dims)
    visible = mask(pattern, 90, 130)
    check_forward(
        lambda q, k, v: attn(q, k, v, return_lse=True), *qkv, visible, pattern.score, sink=attn.sink, q_offset=40
    )
    check_gradients(
        lambda q, k, v: attn(q, k, v, return_lse=True), *qkv, visible, pattern.score, sink=attn.sink, q_offset=40
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("target", ["torch", "cpu"])
def test_short_floats_are_within_their_tolerance(target: str, dtype: str) -> None:
    attn, pattern = attention(target, 40, 24, DTYPES[dtype]), sparsec.parse(TEXT).pattern().resolve()
    qkv, visible = inputs(70, 70, (40, 24), DTYPES[dtype]), mask(pattern, 70, 70)
    check_forward(lambda q, k, v: attn(q, k, v, return_lse=True), *qkv, visible, pattern.score, sink=attn.sink)


@pytest.mark.parametrize("dims", [(24, 40), (40, 17)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", ["torch", "cpu"])
def test_a_cache_gives_what_the_whole_gives(target: str, dtype: str, dims: tuple[int, int]) -> None:
    """In chunks, single tokens, with rows of values that lie apart, and after a fork."""
    attn, (q, k, v) = attention(target, *dims, DTYPES[dtype]), inputs(150, 150, dims, DTYPES[dtype])
    v = v.mT.contiguous().mT
    held, parts = attn.new_cache(2, 160), []
    with torch.no_grad():
        whole = attn(q, k, v)
        for start, stop in ((0, 60), (60, 61), (61, 63), (63, 120), (120, 150)):
            now = slice(start, stop)
            if stop == 120:
                held = held.fork()
            parts.append(attn(q[:, :, now], k[:, :, now], v[:, :, now], cache=held))
    limit = {"float32": 2e-6, "bfloat16": 2e-2, "float16": 2e-3}[dtype]
    assert (torch.cat(parts, dim=2) - whole).abs().max() < limit
    slots, item = held.keys.shape[1], attn.dtype.itemsize
    assert held.values.shape == (2, slots, dims[1]) and held.keys.shape == (2, slots, dims[0])
    assert held.nbytes == 2 * slots * sum(dims) * item
    cost = attn.explain(1000).parts[0].cache
    assert cost is not None and cost.dense_bytes == 2 * 1000 * sum(dims) * item


def test_a_value_of_the_wrong_width_is_refused() -> None:
    q, k, _ = inputs(9, 9, (24, 40))
    with pytest.raises(sparsec.CallError, match=r"expected v of shape \[B, 2, Nk, 40\], got \[2, 2, 9, 24\]"):
        attention("cpu", 24, 40)(q, k, k)
    with pytest.raises(sparsec.CallError, match="expected value_dim between 1 and 1024, got 0"):
        sparsec.compile(TEXT, head_dim=24, value_dim=0)


@pytest.mark.parametrize("target", ["torch", "cpu"])
def test_it_works_under_torch_compile_and_passes_opcheck(target: str) -> None:
    attn, (q, k, v) = attention(target, 24, 40), inputs(60, 60, (24, 40))
    compiled = torch.compile(lambda *qkv: attn(*qkv, return_lse=True, return_mass=True), fullgraph=True)
    found, wanted = compiled(q, k, v), attn(q, k, v, return_lse=True, return_mass=True)
    assert [t.shape for t in found] == [(2, 4, 60, 40), (2, 4, 60), (2, 4, 60)]
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert attn.sink is not None and isinstance(attn._kernel, str)
    shared = attn.sink.detach(), None, None, None, attn._kernel, 0, None
    torch.library.opcheck(torch.ops.sparsec.forward, (*(t.requires_grad_() for t in (q, k, v)), *shared))
    torch.library.opcheck(torch.ops.sparsec.mass, (q.detach(), k.detach(), wanted[1].detach(), *shared))
