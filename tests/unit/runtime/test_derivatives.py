"""`torch.func` over a compiled pattern: gradients by grad, vjp, jacrev and vmap are those that autograd gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, vjp, vmap

import sparsec
from sparsec.runtime.module import SparseAttention

CPU = pytest.param("cpu", marks=pytest.mark.kernels)
TEXT = "pattern p { heads 4 kv 2  block 16  causal  softcap 3  attend window(9) | stride(3b, phase = -g) }"
TARGETS = pytest.mark.parametrize("target", ["torch", CPU])


def compiled(target: str, extra: str = "", dtype: torch.dtype = torch.float32) -> SparseAttention:
    return sparsec.compile(TEXT.replace("causal", f"causal  {extra}"), head_dim=16, target=target, dtype=dtype)


def tensors(n: int = 40, batch: int = 2, samples: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    generator, front = torch.Generator().manual_seed(0), () if samples is None else (samples,)
    q, k, v = (torch.randn((*front, batch, heads, n, 16), generator=generator) for heads in (4, 2, 2))
    return q, k, v


def loss_of(attn: SparseAttention) -> Callable[..., Tensor]:
    def loss(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, lse = attn(q, k, v, return_lse=True)
        return out.sin().sum() + lse.cos().sum()

    return loss


def by_autograd(function: Callable[..., Tensor], *given: Tensor) -> tuple[Tensor, ...]:
    leaves = [t.detach().clone().requires_grad_() for t in given]
    return torch.autograd.grad(function(*leaves), leaves)


def agree(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float = 0.0) -> None:
    for ours, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, exact, atol=tolerance, rtol=0)


@TARGETS
def test_grad_and_vjp_are_autograds_bit_for_bit(target: str) -> None:
    attn, qkv = compiled(target), tensors()
    loss = loss_of(attn)
    expected = by_autograd(loss, *qkv)
    agree(grad(loss, argnums=(0, 1, 2))(*qkv), expected)
    value, pull = vjp(loss, *qkv)
    assert torch.equal(value, loss(*qkv))
    agree(pull(torch.ones(())), expected)
    agree((grad(lambda k: loss(qkv[0], k, qkv[2]))(qkv[1]),), expected[1:2])


@TARGETS
def test_jacrev_is_one_gradient_a_row(target: str) -> None:
    attn, (q, k, v) = compiled(target), tensors(n=6, batch=1)

    def some(q: Tensor, k: Tensor) -> Tensor:
        return attn(q, k, v)[0, 1, :, :3].flatten()

    rows = jacrev(some, argnums=(0, 1))(q, k)
    for n in range(18):
        agree(tuple(row[n] for row in rows), by_autograd(lambda q, k, n=n: some(q, k)[n], q, k), 1e-6)


@TARGETS
@pytest.mark.parametrize("shared", ["none", "keys"])
def test_gradients_by_sample(target: str, shared: str) -> None:
    attn, (q, k, v) = compiled(target), tensors(samples=3)
    loss = loss_of(attn)
    in_dims = (0, 0, 0) if shared == "none" else (0, None, None)
    if shared == "keys":
        k, v = k[1], v[1]
    found = vmap(grad(loss, argnums=(0, 1, 2)), in_dims=in_dims)(q, k, v)
    for n in range(3):
        keys, values = (k[n], v[n]) if shared == "none" else (k, v)
        agree(tuple(t[n] for t in found), by_autograd(loss, q[n], keys, values), 1e-6)


@TARGETS
def test_vmap_over_any_dimension_and_the_gradient_of_it(target: str) -> None:
    attn, (q, k, v) = compiled(target), tensors(samples=3)
    expected = torch.stack([attn(q[n], k[n], v[n]) for n in range(3)])
    moved = q.movedim(0, 3), k.movedim(0, 1), v.movedim(0, 4)
    agree((vmap(attn, in_dims=(3, 1, 4), out_dims=2)(*moved),), (expected.movedim(0, 2),), 1e-6)
    total = grad(lambda q: vmap(attn)(q, k, v).square().sum())(q)
    each = [by_autograd(lambda q, n=n: attn(q, k[n], v[n]).square().sum(), q[n])[0] for n in range(3)]
    agree((total,), (torch.stack(each),), 1e-6)
    twice = vmap(vmap(attn))(*(t[None].expand(2, *t.shape) for t in (q, k, v)))
    agree((twice,), (expected[None].expand(2, *expected.shape),), 1e-6)


@TARGETS
def test_gradients_of_a_sink_by_sample(target: str) -> None:
    attn, (q, k, v) = compiled(target, "learned_sink"), tensors(samples=3)
    sinks = torch.linspace(-1, 1, 12).view(3, 4)

    def loss(sink: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional_call(attn, {"sink": sink}, (q, k, v)).square().sum()

    for sink, dims in ((sinks[0], (None, 0, 0, 0)), (sinks, (0, 0, 0, 0))):
        found = vmap(grad(loss, argnums=(0, 1)), in_dims=dims)(sink, q, k, v)
        for n in range(3):
            own = sink if sink.dim() == 1 else sink[n]
            exact = by_autograd(lambda s, x, n=n: loss(s, x, k[n], v[n]), own, q[n])
            agree(tuple(t[n] for t in found), exact, 1e-5)


@pytest.mark.kernels
def test_gradients_of_packed_documents_by_sample() -> None:
    attn, (q, k, v) = compiled("cpu", "documents"), tensors(batch=1, samples=2)
    ends = torch.tensor([[0, 10, 40], [0, 33, 40]], dtype=torch.int32)

    def loss(q: Tensor, k: Tensor, v: Tensor, ends: Tensor) -> Tensor:
        return attn(q, k, v, cu_seqlens=ends).square().sum()

    found = vmap(grad(loss, argnums=(0, 1, 2)))(q, k, v, ends)
    for n in range(2):
        exact = by_autograd(lambda q, k, v, n=n: loss(q, k, v, ends[n]), q[n], k[n], v[n])
        agree(tuple(t[n] for t in found), exact, 1e-6)


@pytest.mark.kernels
def test_a_gradient_in_a_graph() -> None:
    attn, qkv = compiled("cpu"), tensors()
    step = grad(loss_of(attn), argnums=(0, 1, 2))
    agree(torch.compile(step, backend="aot_eager", fullgraph=True)(*qkv), step(*qkv), 1e-6)
    by_sample = vmap(step)
    many = tensors(samples=3)
    agree(torch.compile(by_sample, backend="aot_eager", fullgraph=True)(*many), by_sample(*many), 1e-6)


def test_second_derivatives_and_forward_mode_are_refused() -> None:
    attn, (q, k, v) = compiled("torch"), tensors(n=5, batch=1)

    def squares(q: Tensor) -> Tensor:
        return attn(q, k, v).square().sum()

    for derivative in (grad(lambda q: grad(squares)(q).sum()), jacrev(grad(squares))):
        with pytest.raises(sparsec.SparsecError, match="expected a first derivative, got a second one"):
            derivative(q)
    for derivative in (jacfwd(squares), hessian(squares)):
        with pytest.raises(sparsec.SparsecError, match="expected no forward-mode derivative"):
            derivative(q)


@pytest.mark.kernels
def test_vmap_over_a_cache_is_one_clear_error() -> None:
    attn, (q, k, v) = compiled("cpu"), tensors(samples=3)
    cache = attn.new_cache(2, 64)
    with pytest.raises(sparsec.CallError, match="expected no vmap over a call with a cache"), torch.no_grad():
        vmap(lambda q, k, v: attn(q, k, v, cache=cache))(q, k, v)
    assert cache.length == 0
