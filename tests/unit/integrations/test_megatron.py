"""Megatron-core: modules of its interface, and where it is installed a model of it, against dense masked attention."""

from __future__ import annotations

import os
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional

import sparsec
from sparsec.integrations.megatron import core_attention, with_core_attention

TEXT = """
pattern local(n = 9) { causal  attend sink(2) | window(n) }
pattern dense { causal  attend full }
model two { layers 2  where l == 0 use local  otherwise use dense }
"""
PACKED = "pattern packed { causal  documents  attend window(6) }"


def config(**more: Any) -> Any:
    own = {"num_layers": 2, "num_attention_heads": 4, "num_query_groups": 2, "kv_channels": 16}
    own |= {"attention_dropout": 0.0, "params_dtype": torch.float32}
    own |= {"tensor_model_parallel_size": 1, "context_parallel_size": 1}
    return SimpleNamespace(**{**own, **more})


def masked(q: Any, k: Any, v: Any, mask: Any) -> Any:
    """[tokens, B, heads, D] by torch's own."""
    q, k, v = (each.permute(1, 2, 0, 3) for each in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True).permute(2, 0, 1, 3).flatten(2)


def test_layers_attend_by_their_patterns() -> None:
    build, program = core_attention(TEXT, target="torch"), sparsec.parse(TEXT)
    q, k, v = (torch.randn(40, 2, heads, 16) for heads in (4, 2, 2))
    for number, pattern in ((1, "local"), (2, "dense")):
        layer = build(config=config(), layer_number=number, softmax_scale=None, pg_collection=None, cp_comm_type="p2p")
        out = layer(q, k, v, None, attn_mask_type="causal", attention_bias=None, packed_seq_params=None)
        mask = program.pattern(pattern).mask(40, 40, heads=4, kv_heads=2)
        torch.testing.assert_close(out, masked(q, k, v, mask), rtol=1e-4, atol=1e-5)


def test_packed_documents() -> None:
    layer = core_attention(PACKED, target="torch")(config=config(), layer_number=1)
    q, k, v = (torch.randn(40, heads, 16) for heads in (4, 2, 2))
    ends = torch.tensor([0, 13, 40], dtype=torch.int32)
    out = layer(q, k, v, None, packed_seq_params=SimpleNamespace(qkv_format="thd", cu_seqlens_q=ends))
    i = torch.arange(40)
    mask = (i[:, None] >= i) & (i[:, None] - i < 6) & ((i[:, None] >= 13) == (i >= 13))
    expected = masked(*(each.unsqueeze(1) for each in (q, k, v)), mask)[:, 0]
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_what_patterns_do_not_say_is_refused() -> None:
    build = core_attention(TEXT, "local", target="torch")
    q, k = torch.randn(8, 1, 4, 16), torch.randn(8, 1, 2, 16)
    for wrong, said in (
        ({"attention_dropout": 0.1}, "attention_dropout of 0, got 0.1"),
        ({"window_size": (3, 0)}, "window_size None"),
        ({"softmax_type": "learnable"}, "softmax_type 'vanilla'"),
        ({"tensor_model_parallel_size": 2}, "a pg_collection with tp for 2 ranks"),
    ):
        with pytest.raises(sparsec.CallError, match=said):
            build(config=config(**wrong), layer_number=1)
    layer = build(config=config(), layer_number=1)
    with pytest.raises(sparsec.CallError, match="mask type of causal, no_mask, which patterns say, got arbitrary"):
        layer(q, k, k, None, attn_mask_type="arbitrary")
    with pytest.raises(sparsec.CallError, match="expected no attention bias"):
        layer(q, k, k, None, attention_bias=torch.zeros(1))
    with pytest.raises(sparsec.CallError, match="expected a pattern with `documents` for packed sequences"):
        layer(q, k, k, None, packed_seq_params=SimpleNamespace(qkv_format="thd"))


def test_masks_that_say_another_thing_are_refused() -> None:
    build = core_attention(TEXT, "local", target="torch")
    for wrong, said in (
        ({"attention_type": "cross"}, "attention_type self, got cross"),
        ({"k_channels": 24}, "k_channels of config.kv_channels, 16, got 24"),
        ({"v_channels": 8}, "v_channels of config.kv_channels, 16, got 8"),
    ):
        with pytest.raises(sparsec.CallError, match=said):
            build(config=config(), layer_number=1, **wrong)
    layer = build(config=config(), layer_number=1, attention_type="self", k_channels=16)
    q, k = torch.randn(8, 1, 4, 16), torch.randn(8, 1, 2, 16)
    later = torch.ones(8, 8, dtype=torch.bool).triu(1)
    wanted = layer(q, k, k, None)
    for mask, kind in ((later[None, None], "causal"), (torch.zeros_like(later), "no_mask")):
        torch.testing.assert_close(layer(q, k, k, mask, attn_mask_type=kind), wanted)
    documents = later.clone()
    documents[5:, :5] = True
    for mask, said in (
        (documents[None, None], "hides the later keys alone, or none, got another"),
        (torch.zeros_like(later), "hides the later keys alone"),
        (later.float(), r"bool attention_mask \[..., 8, 8\], or none, got float32 \[8, 8\]"),
        (later[:, :4], r"got bool \[8, 4\]"),
    ):
        with pytest.raises(sparsec.CallError, match=said):
            layer(q, k, k, mask, attn_mask_type="causal")


def test_a_pattern_that_looks_ahead_has_no_causal_mask() -> None:
    build = core_attention("pattern both { attend window(4, ahead = 3) }", target="torch")
    with pytest.raises(sparsec.CallError, match="a causal pattern for the mask type causal, got one that looks ahead"):
        build(config=config(), layer_number=1, attn_mask_type=SimpleNamespace(name="causal"))
    layer = build(config=config(), layer_number=1, attn_mask_type="no_mask")
    q, k = torch.randn(8, 1, 4, 16), torch.randn(8, 1, 2, 16)
    i = torch.arange(8)
    live = (i[:, None] - i).abs() < 4
    torch.testing.assert_close(layer(q, k, k, None), masked(q, k, k, live), rtol=1e-4, atol=1e-5)
    with pytest.raises(sparsec.CallError, match="mask type causal, got one that looks ahead"):
        layer(q, k, k, None, attn_mask_type="causal")
    with pytest.raises(sparsec.CallError, match="hides the later keys alone"):
        layer(q, k, k, torch.ones(8, 8, dtype=torch.bool).triu(1))


def test_a_model_of_megatron(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own local attention, under the pattern's mask, has the same logits and gradients."""
    pytest.importorskip("megatron.core", reason="Megatron-core is in nobody's extras")
    import torch.distributed as dist
    from megatron.core import parallel_state, tensor_parallel
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.transformer import TransformerConfig

    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    tracker = SimpleNamespace(fork=nullcontext)  # Megatron's own attention has a buffer and a generator on a GPU
    monkeypatch.setattr(tensor_parallel, "get_cuda_rng_tracker", lambda: tracker)
    buffer = SimpleNamespace(get_tensor=lambda shape, dtype, name: torch.empty(shape, dtype=dtype))
    monkeypatch.setattr(parallel_state, "get_global_memory_buffer", lambda: buffer)
    try:
        sizes: dict[str, Any] = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "num_query_groups": 2}
        options = {"use_cpu_initialization": True, "attention_dropout": 0.0, "hidden_dropout": 0.0}
        of = TransformerConfig(**sizes, **options)
        spec, found = get_gpt_layer_local_spec(), []
        text = "pattern local { causal  attend sink(2) | window(9) }"
        mask = sparsec.parse(text).pattern("local").mask(40, 40, heads=4, kv_heads=2)[0]
        tokens = torch.randint(50, (2, 40), generator=torch.Generator().manual_seed(0))
        later = torch.ones_like(mask).triu(1)
        ours = with_core_attention(spec, core_attention(text, target="torch"))
        for each, hidden in ((spec, ~mask), (ours, later)):
            torch.manual_seed(0)
            model = GPTModel(of, each, vocab_size=50, max_sequence_length=40)
            logits = model(tokens, torch.arange(40).expand(2, 40), hidden[None, None])
            logits.float().square().mean().backward()
            found.append((logits, *(p.grad for p in model.parameters())))
        for theirs, own in zip(*found, strict=True):
            torch.testing.assert_close(own, theirs, rtol=1e-3, atol=1e-5)
    finally:
        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()
