"""SelfAttention agrees with a formula, and compiles, exports, checkpoints, casts and saves."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import sparsec
from sparsec.nn import SelfAttention

TEXT = "pattern p { block 16  causal  attend window(2b) | stride(3b, phase = -g) }"


def layer(seed: int = 0, **changed: object) -> SelfAttention:
    torch.manual_seed(seed)
    options: dict[str, object] = {"pattern": TEXT, "target": "torch", **changed}
    return SelfAttention(64, 4, 2, **options)  # type: ignore[arg-type]  # options vary by test


class Model(nn.Module):
    """Two layers, and norms between them."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer(seed, rotary=True, target=target) for seed in (1, 2))
        self.norm = nn.RMSNorm(64)

    def forward(self, x: Tensor) -> Tensor:
        for each in self.layers:
            x = x + each(self.norm(x))
        return x


def tokens(length: int = 70, batch: int = 2) -> Tensor:
    return torch.randn((batch, length, 64), generator=torch.Generator().manual_seed(3))


def test_sequences_of_a_batch_have_positions_of_their_own() -> None:
    """Prompts of 9 and 4 tokens in one call, then steps in which one of them gets nothing."""
    module = layer(rotary=True).requires_grad_(False)
    x, cache = tokens(14), module.attention.new_cache(2, 20)
    rows: list[list[Tensor]] = [[], []]
    for first, counts in ((0, [9, 4]), (9, [1, 0]), (10, [2, 4])):
        part = x[:, first : first + max(counts)]
        out = module(part, cache=cache, lengths=torch.tensor(counts))
        for row, given, found, count in zip(rows, part, out, counts, strict=True):
            row.append(torch.stack([given[-count:], found[-count:]]) if count else given.new_zeros(2, 0, 64))
    for row in rows:
        alone, found = torch.cat(row, 1)
        torch.testing.assert_close(found, module(alone[None])[0], atol=1e-5, rtol=1e-5)


def gradients(model: nn.Module, x: Tensor, run: object = None) -> tuple[Tensor, list[Tensor]]:
    model.zero_grad()
    loss = (model if run is None else run)(x).square().mean()  # type: ignore[operator]  # what torch.compile gives
    loss.backward()
    return loss.detach(), [each.grad.clone() for each in model.parameters() if each.grad is not None]


@pytest.mark.kernels
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("target", ["torch", "cpu"])
def test_it_agrees_with_a_formula(target: str, rotary: bool) -> None:
    module, x = layer(rotary=rotary, bias=True, target=target), tokens()
    q = module.q_proj(x).view(2, 70, 4, 16).transpose(1, 2)
    k, v = (project(x).view(2, 70, 2, 16).transpose(1, 2) for project in (module.k_proj, module.v_proj))
    if rotary:
        angles = torch.arange(70)[:, None] / 10000 ** (torch.arange(8) / 8)
        turns = torch.polar(torch.ones_like(angles), angles)
        q, k = (torch.cat(((z := torch.complex(*each.chunk(2, -1)) * turns).real, z.imag), dim=-1) for each in (q, k))
    live = sparsec.parse(TEXT).pattern().mask(70, 70, heads=4, kv_heads=2)
    scores = (q @ k.repeat_interleave(2, 1).mT / 4).masked_fill(~live, -math.inf)
    out = (scores.softmax(-1) @ v.repeat_interleave(2, 1)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(module(x), module.o_proj(out), atol=1e-5, rtol=0)


def test_packed_documents_are_apart_wherever_they_stand() -> None:
    module = layer(pattern=TEXT.replace("causal", "causal  documents restart"), rotary=True)
    x, ends = tokens(70, 1), (0, 9, 9, 40, 70)
    whole = module(x, torch.tensor(ends, dtype=torch.int32))
    for start, stop in pairwise(ends):
        part = module(x[:, start:stop], torch.tensor([0, stop - start], dtype=torch.int32))
        torch.testing.assert_close(part, whole[:, start:stop], atol=1e-5, rtol=0)


def test_a_pattern_by_file() -> None:
    module = layer(pattern="examples/s2.sparse", name="s2", params={"local": "1b", "every": "2b"})
    assert module.attention.plan is not None and module.attention.plan.heads == 4


@pytest.mark.kernels
@pytest.mark.parametrize("target", ["torch", "cpu"])
def test_torch_compile_takes_one_graph_forward_and_backward(target: str) -> None:
    graphs = 0

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        nonlocal graphs
        graphs += 1
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    torch._dynamo.reset()
    model = Model(target)
    run = torch.compile(model, backend=backend, fullgraph=True)
    for length in (70, 33, 129):
        expected, expected_gradients = gradients(model, tokens(length))
        found, found_gradients = gradients(model, tokens(length), run)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found_gradients, expected_gradients, atol=1e-5, rtol=1e-4)
        assert len(found_gradients) == 9
        assert graphs == 1 if length == 70 else graphs <= 2


def test_torch_export_takes_any_length() -> None:
    model = Model("torch").eval()
    length = torch.export.Dim("length", min=2, max=4096)
    exported = torch.export.export(model, (tokens(),), dynamic_shapes={"x": {1: length}})
    for each in (70, 33, 200):
        torch.testing.assert_close(exported.module()(tokens(each)), model(tokens(each)), atol=1e-6, rtol=0)


@pytest.mark.kernels
def test_a_checkpoint_gives_the_same_gradients() -> None:
    model = Model("cpu")
    expected = gradients(model, tokens())
    found = gradients(model, tokens(), lambda x: checkpoint(model, x, use_reentrant=False))
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


@pytest.mark.parametrize("kernel_dtype", [torch.float32, torch.bfloat16])
def test_autocast_keeps_the_parameters_and_casts_the_rest(kernel_dtype: torch.dtype) -> None:
    module, x = layer(rotary=True, kernel_dtype=kernel_dtype), tokens()
    with torch.no_grad():
        expected = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
    assert out.dtype == torch.bfloat16 and expected.dtype == torch.float32 and not expected.requires_grad
    torch.testing.assert_close(out.float(), expected, atol=0.03, rtol=0)
    out.float().square().mean().backward()
    assert all(each.grad is not None and each.grad.dtype == torch.float32 for each in module.parameters())


def test_a_bfloat16_module_runs_in_bfloat16() -> None:
    module = layer(rotary=True, dtype=torch.bfloat16)
    assert module.attention.dtype == torch.bfloat16
    assert module(tokens().bfloat16()).dtype == torch.bfloat16


def test_its_state_goes_round() -> None:
    text = TEXT.replace("causal", "causal  learned_sink")
    first, second = layer(1, pattern=text, bias=True), layer(2, pattern=text, bias=True)
    assert first.attention.sink is not None
    nn.init.normal_(first.attention.sink)
    assert not torch.equal(first(tokens()), second(tokens()))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(tokens()), second(tokens()))
    projections = [f"{name}_proj.{kind}" for name in "qkvo" for kind in ("weight", "bias")]
    assert sorted(first.state_dict()) == sorted(["attention.sink", *projections])


def test_mistakes_are_named() -> None:
    for arguments, message in (
        ((66, 4), "heads that divide embed_dim, or a head_dim, got 4 heads for 66"),
        ((0, 4), "embed_dim of at least 1, got 0"),
    ):
        with pytest.raises(sparsec.CallError, match=message):
            SelfAttention(*arguments, pattern=TEXT)
    with pytest.raises(sparsec.CallError, match="an even head_dim with rotary, got 15"):
        layer(head_dim=15, rotary=True)
    with pytest.raises(sparsec.CallError, match="rotary_base above 0, got -1"):
        layer(rotary=True, rotary_base=-1.0)
    with pytest.raises(sparsec.CallError, match=r"expected x of shape \[B, N, 64\], got \[70, 64\]"):
        layer()(tokens()[0])
    with pytest.raises(sparsec.CallError, match="expected no cu_seqlens"):
        layer()(tokens(1, 1), torch.tensor([0, 1], dtype=torch.int32))


@pytest.mark.kernels
def test_sparsec_nn_loads_on_first_use() -> None:
    code = "import sys, sparsec; before = 'torch' in sys.modules; print(before, sparsec.nn.SelfAttention.__name__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["False", "SelfAttention"], run.stderr


def test_parameters_may_wait_for_their_values() -> None:
    with torch.device("meta"):
        waiting = layer()
    assert waiting.q_proj.weight.is_meta
    found = waiting.to_empty(device="cpu")
    found.load_state_dict(layer().state_dict())
    assert torch.equal(found(tokens()), layer()(tokens()))
