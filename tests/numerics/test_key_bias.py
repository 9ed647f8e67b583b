"""`key_bias` in every kernel: outputs, log-sum-exp, mass, gradients of q, k, v and of the weights themselves."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from triton_harness import interpreted, passes_in_the_interpreter

import sparsec
from sparsec.pipeline import Lowered
from sparsec.runtime.compile import module_for
from sparsec.runtime.kernel import registered
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.request import Request

pytestmark = pytest.mark.kernels
TARGETS = ("triton",) if interpreted() else ("torch", "cpu")
BATCH, HEADS, KV_HEADS, DIM = 2, 4, 2, 16
WINDOW = "causal softcap 3.0 alibi key_bias lean input lean : weights attend window(20) | sink(3)"
LISTED = "causal key_bias lean learned_sink input picks : rows input lean : weights attend window(10) | picks"

DRAWN = "causal key_bias lean input lean : weights attend random(2, seed = 2)"


@pytest.mark.skipif(interpreted(), reason="is that process")
def test_interpreted_triton() -> None:
    passes_in_the_interpreter(__file__)


def module_of(body: str, target: str, dtype: torch.dtype = torch.float32) -> SparseAttention:
    text = f"pattern p {{ heads {HEADS} kv {KV_HEADS} block 16 {body} }}"
    resolved = sparsec.parse(text).pattern("p").resolve(None, None)
    return module_for(Request(Lowered(resolved), DIM, DIM, dtype), target, torch.device("cpu"))


def tensors(n_q: int, n_k: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    torch.manual_seed(n_q)
    shapes = ((HEADS, n_q), (KV_HEADS, n_k), (KV_HEADS, n_k), (HEADS, n_q))
    return [torch.randn(BATCH, heads, n, DIM).to(dtype) for heads, n in shapes]


def weights_of(n_k: int, batch: int, heads: int) -> Tensor:
    """Some keys are not seen at all, and a run of them by none of the first head."""
    found = torch.randn(batch, heads, n_k)
    found[:, :, 5] = -math.inf
    found[:, 0, 3 : n_k // 2] = -math.inf
    return found


def picks_of(n_q: int, n_k: int) -> Tensor:
    return torch.stack([torch.randperm(n_k)[:5] for _ in range(BATCH * n_q)]).view(BATCH, 1, n_q, 5).int()


def outcome(attn: SparseAttention, given: list[Tensor], inputs: dict[str, Tensor], dtype: torch.dtype) -> list[Tensor]:
    """out, the LSE, gradients of q, k, v and the weights, and the mass of keys where no list stands in its way."""
    *leaves, grad = [t.detach().clone().to(dtype).requires_grad_() for t in given[:3]] + [given[3].to(dtype)]
    weights = inputs["lean"].clone().requires_grad_()
    call: dict[str, Any] = {"inputs": {**inputs, "lean": weights}}
    out, lse = attn(*leaves, return_lse=True, **call)
    loss = (out * grad).sum() + lse[lse.isfinite()].cos().sum()
    found = [out, lse, *torch.autograd.grad(loss, [*leaves, weights])]
    if "picks" not in inputs:
        found.append(attn(*leaves, return_mass=True, **call)[1])
    return [each.detach() for each in found]


def assert_like(found: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    for mine, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine.double(), exact.double(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("body", "heads", "batch"), [(WINDOW, 1, 1), (WINDOW, KV_HEADS, 2), (LISTED, HEADS, 2), (DRAWN, 1, 1)]
)
def test_outputs_and_gradients(target: str, body: str, heads: int, batch: int) -> None:
    given = tensors(21, 37)
    inputs = {"lean": weights_of(37, batch, heads)}
    if "picks" in body:
        inputs["picks"] = picks_of(21, 37)
    wanted = outcome(module_of(body, "reference", torch.float64), given, inputs, torch.float64)
    assert_like(outcome(module_of(body, target), given, inputs, torch.float32), wanted, 2e-5)


@pytest.mark.parametrize("heads", [1, KV_HEADS, HEADS])
def test_bfloat16(heads: int) -> None:
    given, inputs = tensors(45, 77, torch.bfloat16), {"lean": weights_of(77, BATCH, heads)}
    wanted = outcome(module_of(WINDOW, "reference", torch.float64), given, inputs, torch.float64)
    assert_like(outcome(module_of(WINDOW, "cpu", torch.bfloat16), given, inputs, torch.bfloat16), wanted, 0.06)


@pytest.mark.parametrize("target", TARGETS)
def test_a_row_that_sees_no_key(target: str) -> None:
    given = tensors(19, 19)
    found = outcome(module_of(WINDOW, target), given, {"lean": torch.full((1, 1, 19), -math.inf)}, torch.float32)
    assert torch.equal(found[1], torch.full_like(found[1], -math.inf))
    for each in (found[0], *found[2:]):
        assert torch.equal(each, torch.zeros_like(each))


@pytest.mark.parametrize("target", TARGETS)
def test_what_keys_hold_that_are_not_seen_changes_nothing(target: str) -> None:
    """Neither keys whose weight is -inf nor weights of keys that no query sees."""
    body = "causal input lean : weights key_bias lean attend window(8)"
    attn, (q, k, v, grad) = module_of(body, target), tensors(9, 40)
    weights = torch.randn(1, 1, 40)
    weights[..., 33] = -math.inf
    usual = outcome(attn, [q, k, v, grad], {"lean": weights}, torch.float32)
    k, v, weights = k.clone(), v.clone(), weights.clone()
    k[:, :, 33] = v[:, :, 33] = weights[..., :20] = math.nan
    for mine, before in zip(outcome(attn, [q, k, v, grad], {"lean": weights}, torch.float32), usual, strict=True):
        torch.testing.assert_close(mine, before, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_keys_that_one_head_of_a_group_does_not_see(target: str) -> None:
    """What they hold never reaches that head, from a list or from a tile, in one call and over a cache."""
    body = "causal input lean : weights key_bias lean input picks : rows attend window(3) | picks"
    text = f"pattern p {{ heads 2 kv 1 block 16 {body} }}"
    attn, n, hidden = sparsec.compile(text, head_dim=DIM, target=target, device="cpu"), 12, [5, 9]
    q, k, v, grad = (torch.randn(1, heads, n, DIM) for heads in (2, 1, 1, 2))
    weights = torch.randn(1, 2, n)
    weights[:, 1, hidden] = -math.inf
    inputs = {"lean": weights, "picks": torch.tensor([1, 2, 5]).expand(1, 1, n, 3)}

    def of_head(head: int, k: Tensor, v: Tensor) -> list[Tensor]:
        leaf = q.clone().requires_grad_()
        out, lse = attn(leaf, k, v, return_lse=True, inputs=inputs)
        found = [out, lse, *torch.autograd.grad(out[:, head], leaf, grad[:, head])]
        found.append(attn(q, k, v, return_mass=True, inputs=inputs)[1])
        with warnings.catch_warnings(action="ignore"):  # a cache of `picks` keeps every key
            cache = attn.new_cache(1, n)
        for start, stop in ((0, 8), (8, 9), (9, n)):
            now = {"lean": weights[..., start:stop], "picks": inputs["picks"][:, :, start:stop]}
            found.append(attn(*(t[:, :, start:stop] for t in (q, k, v)), cache=cache, inputs=now))
        return [each[:, head].detach() for each in found]

    k_bad, v_bad = (t.index_fill(2, torch.tensor(hidden), math.nan) for t in (k, v))
    for mine, usual in zip(of_head(1, k_bad, v_bad), of_head(1, k, v), strict=True):
        assert torch.equal(mine, usual)
    assert any(each.isnan().any() for each in of_head(0, k_bad, v_bad))


@pytest.mark.parametrize("target", TARGETS)
def test_a_cache_remembers_the_weights(target: str) -> None:
    body = "causal softcap 3.0 input lean : weights key_bias lean attend window(20) | sink(3)"
    attn, (q, k, v, _) = module_of(body, target), tensors(29, 29)
    weights = weights_of(29, BATCH, KV_HEADS)
    wanted = module_of(body, "reference")(q, k, v, inputs={"lean": weights})
    cache, found, start = attn.new_cache(BATCH, 32), list[Tensor](), 0
    for new in (7, 1, 12, 1, 8):
        part = slice(start, start + new)
        given = {"lean": weights[..., part]}
        with torch.no_grad():
            found.append(attn(q[:, :, part], k[:, :, part], v[:, :, part], cache=cache, inputs=given))
        start += new
    torch.testing.assert_close(torch.cat(found, 2), wanted, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("statement", ["documents", "documents restart"])
def test_documents(target: str, statement: str) -> None:
    body = f"{statement} causal input lean : weights key_bias lean attend window(8)"
    q, k, v, grad = (t[:1] for t in tensors(33, 33))
    weights, bounds = weights_of(33, 1, HEADS), torch.tensor([0, 5, 5, 26, 33], dtype=torch.int32)
    found = []
    for each, dtype in ((target, torch.float32), ("reference", torch.float64)):
        leaves = [t.to(dtype).requires_grad_() for t in (q.clone(), k.clone(), v.clone())]
        own = weights.clone().requires_grad_()
        out = module_of(body, each, dtype)(*leaves, cu_seqlens=bounds, inputs={"lean": own})
        found.append([out.detach(), *torch.autograd.grad(out, [*leaves, own], grad.to(dtype))])
    assert_like(found[0], found[1], 2e-5)


def test_a_gradient_in_float64() -> None:
    """By the operator, whose weights may be float64 too."""
    attn = module_of(WINDOW, "torch", torch.float64)
    q, k, v, _ = (t.double().requires_grad_() for t in tensors(3, 7))
    weights = torch.randn(1, KV_HEADS, 7, dtype=torch.float64, requires_grad=True)
    registered(attn.kernel_digest)

    def attention(*given: Tensor) -> tuple[Tensor, Tensor]:
        *qkv, bias = given
        found: tuple[Tensor, Tensor] = torch.ops.sparsec.forward(
            *qkv, None, None, None, bias, attn.kernel_digest, 4, None
        )
        return found

    assert torch.autograd.gradcheck(attention, (q, k, v, weights))


def test_the_operator() -> None:
    attn, (q, k, v, _) = module_of(WINDOW, "cpu"), tensors(5, 9)
    leaves = [t.requires_grad_() for t in (q, k, v)]
    weights = torch.randn(1, KV_HEADS, 9, requires_grad=True)
    torch.library.opcheck(
        torch.ops.sparsec.forward,
        (*leaves, None, None, [weights.detach().clone()], weights, attn.kernel_digest, 4, None),
    )


def test_the_gradient_is_not_computed_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    attn, (q, k, v, grad) = module_of(WINDOW, "cpu"), tensors(5, 9)
    kernel, asked = registered(attn.kernel_digest).backward, list[bool]()
    backward = type(kernel).backward

    def noted(self: Any, *given: Any, of_bias: bool, **more: Any) -> Any:
        asked.append(of_bias)
        return backward(self, *given, of_bias=of_bias, **more)

    monkeypatch.setattr(type(kernel), "backward", noted)
    for wanted in (False, True):
        weights = torch.randn(1, 1, 9).requires_grad_(wanted)
        attn(q.requires_grad_(), k, v, inputs={"lean": weights}).backward(grad)
        assert asked.pop() is wanted and (weights.grad is not None) is wanted


def test_a_cache_takes_no_gradient() -> None:
    attn, (q, k, v, _) = module_of(WINDOW, "torch"), tensors(5, 5)
    with pytest.raises(sparsec.SparsecError, match="no gradients with a cache"):
        attn(q, k, v, cache=attn.new_cache(BATCH, 8), inputs={"lean": torch.zeros(1, 1, 5, requires_grad=True)})
