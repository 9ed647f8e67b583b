"""SparseAttention as torch sees it: calls checked, operators sound, one graph for every length."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import Unsupported
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import sparsec
from sparsec.runtime.module import SparseAttention

CPU = pytest.param("cpu", marks=pytest.mark.kernels)
TEXT = "pattern p { heads 4 kv 2  block 16  causal  attend window(2b) | stride(3b, phase = -g) }"


def compiled(target: str = "torch", text: str = TEXT, **changed: object) -> SparseAttention:
    options: dict[str, object] = {"head_dim": 16, "target": target, **changed}
    return sparsec.compile(text, **options)  # type: ignore[arg-type]  # options vary by test


def tensors(n_q: int = 33, n_k: int = 70, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, 4, n_q, 16), (batch, 2, n_k, 16), (batch, 2, n_k, 16))
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    return q, k, v


@pytest.mark.parametrize("target", ["torch", CPU, "reference"])
def test_targets_agree_with_a_formula(target: str) -> None:
    q, k, v = tensors()
    i, j, h = torch.arange(37, 70)[:, None], torch.arange(70)[None, :], torch.arange(4)[:, None, None]
    near, shard = i // 16 - j // 16 < 2, (j // 16 + h // 2) % 3 == 0
    scores = (q @ k.repeat_interleave(2, 1).mT / 4).masked_fill(~((j <= i) & (near | shard)), -math.inf)
    out, lse = compiled(target)(q, k, v, return_lse=True)
    torch.testing.assert_close(out, scores.softmax(-1) @ v.repeat_interleave(2, 1), atol=2e-6, rtol=0)
    torch.testing.assert_close(lse, scores.logsumexp(-1), atol=2e-6, rtol=0)


@pytest.mark.parametrize("target", ["torch", CPU, "reference"])
def test_an_offset_moves_the_queries(target: str) -> None:
    q, k, v = tensors()
    attn = compiled(target)
    assert torch.equal(attn(q, k, v), attn(q, k, v, q_offset=37))
    moved, whole = attn(q[:, :, 5:], k, v, q_offset=20), attn(q, k, v, q_offset=15)
    torch.testing.assert_close(moved, whole[:, :, 5:], atol=2e-6, rtol=0)


@pytest.mark.parametrize("target", ["torch", CPU, "reference"])
def test_a_query_without_keys_gives_zero_and_minus_infinity(target: str) -> None:
    q, k, v = tensors()
    out, lse = compiled(target)(q, k, v, q_offset=-20, return_lse=True)
    assert out[:, :, :20].eq(0).all() and lse[:, :, :20].eq(-math.inf).all()
    assert lse[:, :, 20:].isfinite().all()
    empty = compiled(target)(q, k[:, :, :0], v[:, :, :0])
    assert empty.eq(0).all()


def test_a_scale_in_the_file_is_applied() -> None:
    q, k, v = tensors()
    scaled = compiled(text=TEXT.replace("causal", "causal  scale 1/8"))
    torch.testing.assert_close(scaled(q, k, v), compiled()(q / 2, k, v))


def test_a_bad_call_names_the_expected_and_the_given_value() -> None:
    attn, (q, k, v) = compiled(), tensors()
    for arguments, expected, given in (
        ((q[:, :3], k, v), r"q of shape \[B, 4, Nq, 16\]", r"\[2, 3, 33, 16\]"),
        ((q, k[..., :8], v), r"k of shape \[B, 2, Nk, 16\]", r"\[2, 2, 70, 8\]"),
        ((q, k, v.half()), "v of dtype torch.float32", "torch.float16"),
        ((q, k[:1], v), "one batch size", "q 2, k 1, v 2"),
        ((q, k, v[:, :, 1:]), "as many values as keys", "70 keys and 69 values"),
        ((q[0], k, v), r"q of shape", r"\[4, 33, 16\]$"),
        ((q.transpose(1, 2), k, v), "q of shape", r"\[2, 33, 4, 16\], whose tokens .* q.transpose\(1, 2\)$"),
        ((q.half(), k, v), "q of dtype torch.float32", r"float16; sparsec.compile\(..., dtype=torch.float16\) .*"),
        ((q.double(), k, v), "q of dtype torch.float32", "torch.float64$"),
    ):
        with pytest.raises(sparsec.CallError, match=f"expected {expected}.*, got .*{given}"):
            attn(*arguments)
    with pytest.raises(sparsec.CallError, match="positions below"):
        attn(q, k, v, q_offset=1 << 29)


def test_bad_arguments_to_compile_are_named() -> None:
    for changed, message in (
        ({"head_dim": 0}, "expected head_dim between 1 and"),
        ({"target": "gpu"}, "expected a target among cpu, triton, gluon, torch, reference, got 'gpu'"),
        ({"dtype": "float32"}, "torch.float16, got 'float32'"),
        ({"dtype": torch.int32}, "expected dtype torch.float32, torch.bfloat16 or torch.float16, got torch.int32"),
    ):
        with pytest.raises(sparsec.CallError, match=message):
            compiled(**changed)


@pytest.mark.parametrize("target", ["torch", CPU])
def test_the_operator_passes_opcheck(target: str) -> None:
    q, k, v = tensors()
    attn = compiled(target)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    operator = torch.ops.sparsec.forward.default
    torch.library.opcheck(operator, (q, k, v, None, None, None, None, attn._kernel, 37, None), test_utils=checks)
    strided = q.transpose(1, 2).contiguous().transpose(1, 2)
    torch.library.opcheck(operator, (strided, k, v, None, None, None, None, attn._kernel, 37, None), test_utils=checks)


def test_torch_compile_takes_one_graph_for_every_length() -> None:
    attn = compiled("torch")
    graphs = 0

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        nonlocal graphs
        graphs += 1
        return graph

    run = torch.compile(lambda q, k, v: attn(q, k, v) * 2, backend=backend, fullgraph=True, dynamic=True)
    for n_q, n_k in ((33, 70), (20, 90), (64, 64), (7, 200)):
        q, k, v = tensors(n_q, n_k)
        torch.testing.assert_close(run(q, k, v), attn(q, k, v) * 2)
    assert graphs <= 2


@pytest.mark.parametrize("target", ["torch", CPU])
def test_gradients_agree_with_the_dense_reference(target: str) -> None:
    def gradients(kind: str) -> list[torch.Tensor]:
        leaves = [t.requires_grad_() for t in tensors()]
        out, lse = compiled(kind)(*leaves, q_offset=20, return_lse=True)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        ((out * weights).sum() + lse[lse.isfinite()].cos().sum()).backward()
        return [t.grad for t in leaves if t.grad is not None]

    for found, expected in zip(gradients(target), gradients("reference"), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


SCORES = {
    "softcap": "softcap 2",
    "alibi": "alibi",
    "sink": "learned_sink",
    "all": "scale 1/8  softcap 3  alibi  learned_sink",
    "documents": "documents",
    "restart": "documents restart",
    "all in documents": "documents restart  softcap 3  alibi  learned_sink",
    "random": "",
}


@pytest.mark.parametrize("target", ["torch", CPU])
@pytest.mark.parametrize("name", SCORES)
def test_scores_and_documents_agree_with_the_dense_reference(name: str, target: str) -> None:
    extra = "| random(2)" if name == "random" else ""
    terms = f"window(20) | stride(3b, phase = -g) {extra}"
    text = f"pattern p {{ heads 4 kv 2  block 16  causal  {SCORES[name]}  attend {terms} }}"
    lengths = torch.tensor([0, 3, 3, 40, 41, 100], dtype=torch.int32) if "documents" in SCORES[name] else None

    def run(kind: str) -> list[torch.Tensor]:
        attn = compiled(kind, text)
        leaves = [t.requires_grad_() for t in tensors(100, 100, 1)]
        if attn.sink is not None:
            with torch.no_grad():
                attn.sink.copy_(torch.tensor([0.5, -1.0, 2.0, 0.0]))
            leaves.append(attn.sink)
        out, lse = attn(*leaves[:3], return_lse=True, cu_seqlens=lengths)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        ((out * weights).sum() + lse.cos().sum()).backward()
        return [out, lse, *(t.grad for t in leaves if t.grad is not None)]

    found, expected = run(target), run("reference")
    assert len(found) == len(expected) == 5 + ("sink" in SCORES[name])
    for ours, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, exact, atol=2e-5, rtol=1e-5)


def test_documents_are_checked() -> None:
    q, k, v = tensors(64, 64, 1)
    packed = compiled(text=TEXT.replace("causal", "causal  documents"))
    lengths = torch.tensor([0, 64], dtype=torch.int32)
    for arguments, message in (
        ({}, "expected cu_seqlens, since the pattern has documents, got none"),
        ({"cu_seqlens": lengths.long()}, r"expected cu_seqlens int32 .*, got torch.int64"),
        ({"cu_seqlens": lengths, "q_offset": 3}, "no q_offset with documents"),
    ):
        with pytest.raises(sparsec.CallError, match=message):
            packed(q, k, v, **arguments)
    with pytest.raises(sparsec.CallError, match="expected no cu_seqlens"):
        compiled()(q, k, v, cu_seqlens=lengths)


@pytest.mark.kernels
def test_gradcheck_in_float64() -> None:
    attn = compiled("torch", dtype=torch.float64)
    leaves = [t.double().requires_grad_() for t in tensors(5, 40, 1)]
    torch.autograd.gradcheck(lambda q, k, v: attn(q, k, v, return_lse=True), leaves)


def test_a_second_derivative_is_refused() -> None:
    q, k, v = (t.requires_grad_() for t in tensors())
    (gradient,) = torch.autograd.grad(compiled()(q, k, v).sum(), q, create_graph=True)
    with pytest.raises(sparsec.SparsecError, match="a second one"):
        gradient.sum().backward()


def directional(function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> torch.Tensor:
    """The derivative in the direction of ones, as `torch.autograd.forward_ad` gives it."""
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(at, torch.ones_like(at)))).tangent


def by_jvp(function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> torch.Tensor:
    return torch.func.jvp(function, (at,), (torch.ones_like(at),))[1]


@pytest.mark.kernels
@pytest.mark.parametrize("derivative", [directional, by_jvp])
def test_a_derivative_in_forward_mode_is_refused(derivative: Callable[..., torch.Tensor]) -> None:
    attn, (q, k, v) = compiled("torch", TEXT.replace("causal", "causal  learned_sink")), tensors(70, 70)
    assert attn.sink is not None

    def cached(**given: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return attn(**({"q": q, "k": k, "v": v} | given), cache=attn.new_cache(2, 128))

    for function, at in (
        (lambda q: attn(q, k, v), q),
        (lambda v: attn(q, k, v), v),
        (lambda v: compiled("cpu")(q, k, v), v),
        (lambda sink: torch.func.functional_call(attn, {"sink": sink}, (q, k, v)), attn.sink.detach()),
        (lambda q: cached(q=q), q),
        (lambda k: cached(k=k), k),
    ):
        with pytest.raises(sparsec.SparsecError, match=r"expected no forward-mode derivative .*, got a tangent"):
            derivative(function, at)
    with forward_ad.dual_level():
        assert torch.equal(attn(q, k, v), cached())


@pytest.mark.parametrize("derivative", [directional, by_jvp])
def test_the_reference_has_derivatives_in_forward_mode(derivative: Callable[..., torch.Tensor]) -> None:
    attn, (q, k, v) = compiled("reference", dtype=torch.float64), (t.double() for t in tensors(5, 9))
    found, step = derivative(lambda q: attn(q, k, v), q), 1e-6
    torch.testing.assert_close(found, (attn(q + step, k, v) - attn(q - step, k, v)) / (2 * step), atol=1e-8, rtol=0)


def test_graphs_refuse_derivatives_in_forward_mode() -> None:
    attn, (q, k, v) = compiled("torch"), tensors(20, 20)
    cache = attn.new_cache(2, 20)
    graph = torch.compile(attn, backend="aot_eager", fullgraph=True)
    step = torch.compile(torch.no_grad()(lambda q: attn(q, k, v, cache=cache)), backend="aot_eager", fullgraph=True)
    exported = torch.export.export(attn, (q, k, v)).module()
    for function in (lambda q: graph(q, k, v), step, lambda q: exported(q, k, v)):
        # From torch 2.14 on, torch.compile refuses a tangent before an operator sees it.
        with pytest.raises((sparsec.SparsecError, Unsupported), match=r"no forward-mode derivative|dual tensor"):
            directional(function, q)
    assert cache.length == 0


def test_flops_are_those_of_the_visited_tiles() -> None:
    q, k, v = (t.requires_grad_() for t in tensors(128, 128, 2))
    attn = compiled(text="pattern p { heads 4 kv 2  block 64  attend window(1b) }")
    with FlopCounterMode(display=False) as counter:
        attn(q, k, v).sum().backward()
    forward = 4 * 2 * 4 * 2 * 64 * 64 * 16
    assert counter.get_total_flops() == forward + forward * 5 // 2


@pytest.mark.kernels
def test_checkpoint_autocast_and_export() -> None:
    q, k, v = (t.requires_grad_() for t in tensors())
    attn = compiled("cpu")
    plain = attn(q, k, v)
    kept = checkpoint(attn, q, k, v, use_reentrant=False)
    assert torch.equal(plain, kept)
    for given, expected in zip(*(torch.autograd.grad(o.sum(), (q, k, v)) for o in (kept, plain)), strict=True):
        assert torch.equal(given, expected)
    narrow = compiled("cpu", dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert narrow(q, k, v).dtype == torch.bfloat16
    length = torch.export.Dim("n", min=2, max=4096)
    program = torch.export.export(
        attn, tensors(40, 40), dynamic_shapes=({2: length}, {2: length}, {2: length}), strict=False
    )
    longer = tensors(90, 90)
    torch.testing.assert_close(program.module()(*longer), attn(*longer))


@pytest.mark.kernels
def test_torch_compile_takes_gradients_in_few_graphs() -> None:
    attn = compiled("cpu")
    graphs = 0

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        nonlocal graphs
        graphs += 1
        return graph

    run = torch.compile(lambda q, k, v: attn(q, k, v) * 2, backend=aot_autograd(fw_compiler=backend), dynamic=True)
    for n in (33, 40, 64, 100):
        found, expected = ([t.requires_grad_() for t in tensors(n, n)] for _ in range(2))
        run(*found).sum().backward()
        (attn(*expected) * 2).sum().backward()
        for ours, exact in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.grad, exact.grad)
    assert graphs <= 4  # at most two, forward and backward
