"""The BlockMask that FlexAttention gets has the blocks of `create_block_mask`; its functions take plain patterns."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, create_mask

import sparsec
from sparsec.diagnostics.model import CallError
from sparsec.integrations.flex import FlexUnavailable, block_mask, blocks, mask_mod, score_mod

PATTERNS = {
    "stream": "causal  attend sink(64) | window(200)",
    "by head": "heads 4 kv 2  block 32  causal  attend window(2b) | stride(4b, phase = -h)",
    "fine": "block 16  causal  attend window(3b) | stride(7b)",
    "both ways": "attend window(100, ahead = 40) | global(20)",
    "from the end": "causal  attend columns(-150 ..) | rows(-70 ..)",
    "random": "block 32  causal  attend random(2, seed = 3, lane = 0)",
    "nothing": "attend none",
    "full": "attend full",
    "documents": "documents  causal  attend full",
    "restart": "documents restart  attend chunk(50)",
}


def blocks_of(made: BlockMask) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the partial and of the full blocks, which there are: [batch, heads, rows, columns]."""
    assert made.full_kv_num_blocks is not None and made.full_kv_indices is not None
    pairs = (made.kv_num_blocks, made.kv_indices), (made.full_kv_num_blocks, made.full_kv_indices)
    found = []
    for counts, indices in pairs:
        there = torch.zeros_like(indices, dtype=torch.bool)
        listed = torch.arange(indices.shape[-1]) < counts[..., None]
        found.append(there.scatter(-1, indices.long(), listed))
    return found[0], found[1]


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize(("n_q", "n_k", "block"), [(512, 512, 128), (450, 450, 64), (100, 300, 128)])
def test_blocks_are_those_of_create_block_mask(name: str, n_q: int, n_k: int, block: int) -> None:
    pattern = sparsec.parse(f"pattern p {{ {PATTERNS[name]} }}").pattern()
    bounds = (0, 100, 101, 256, n_k) if "documents" in PATTERNS[name] else None
    if bounds is not None and n_q != n_k:
        with pytest.raises(CallError, match="n_q = n_k"):
            block_mask(pattern, n_q, n_k, "cpu", cu_seqlens=bounds)
        return
    made = block_mask(pattern, n_q, n_k, "cpu", block=block, cu_seqlens=bounds)
    heads = 1 if pattern.heads is None else pattern.heads
    test = mask_mod(pattern, n_q, n_k, "cpu", cu_seqlens=bounds)
    usual = create_block_mask(test, 1, heads, n_q, n_k, device="cpu", BLOCK_SIZE=block)
    for ours, theirs in zip(blocks_of(made), blocks_of(usual), strict=True):
        assert torch.equal(ours.expand_as(theirs), theirs)
    assert made.seq_lengths == usual.seq_lengths and made.BLOCK_SIZE == usual.BLOCK_SIZE


def test_inputs_are_of_each_sequence() -> None:
    pattern = sparsec.parse("pattern p { input n : length  attend causal | columns(0 .. n) }").pattern()
    given = {"n": torch.tensor([10, 200])}
    made = block_mask(pattern, 256, None, "cpu", heads=2, inputs=given)
    usual = create_block_mask(mask_mod(pattern, 256, None, "cpu", heads=2, inputs=given), 2, 1, 256, 256, device="cpu")
    assert made.kv_num_blocks.shape[:2] == (2, 1)
    assert all(torch.equal(*each) for each in zip(blocks_of(made), blocks_of(usual), strict=True))
    with pytest.raises(FlexUnavailable, match="inputs"):
        block_mask(pattern, 256, None, "cpu", heads=2)


@pytest.mark.parametrize("of_heads", [[[4, 40]], [[4], [40]], [4, 40]])
def test_a_length_may_differ_between_heads(of_heads: list[object]) -> None:
    pattern = sparsec.parse("pattern p { input span : length  causal  attend window(span) }").pattern()
    given = {"span": torch.tensor(of_heads)}
    made = block_mask(pattern, 64, None, "cpu", block=16, heads=2, inputs=given)
    live = mask_mod(pattern, 64, None, "cpu", heads=2, inputs=given)
    usual = create_block_mask(live, len(of_heads), 2, 64, 64, device="cpu", BLOCK_SIZE=16)
    assert made.kv_num_blocks.shape[1] == (2 if of_heads == [[4, 40]] else 1)
    for ours, theirs in zip(blocks_of(made), blocks_of(usual), strict=True):
        assert torch.equal(ours.expand_as(theirs), theirs)


def test_a_long_block_mask_comes_from_the_closed_form() -> None:
    """At 32,768 tokens the pairs would be a thousand million; the counts are those of the formula."""
    pattern = sparsec.parse("pattern p { causal  attend window(1024) }").pattern()
    made = block_mask(pattern, 32768, device="cpu")
    partial, full = blocks_of(made)
    row = torch.arange(256)
    assert torch.equal(full[0, 0].sum(1), (row - (row - 7).clamp(min=0)))
    assert torch.equal(partial[0, 0].sum(1), 1 + (row >= 8).long())


@pytest.mark.parametrize("held", [1, 1 << 22])
def test_a_block_that_documents_leave_nothing_of_is_empty(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "HELD_PAIRS", held)
    pattern = sparsec.parse("pattern p { documents  heads 2  causal  attend ~window(60 - 20 * h) }").pattern()
    bounds = (0, 96, 150, 160, 250)
    made = block_mask(pattern, 250, None, "cpu", block=64, cu_seqlens=bounds)
    usual = create_block_mask(mask_mod(pattern, 250, 250, "cpu", cu_seqlens=bounds), 1, 2, 250, 250, "cpu", 64)
    assert all(torch.equal(*each) for each in zip(blocks_of(made), blocks_of(usual), strict=True))
    assert made.kv_num_blocks[0, 0, 1] == 1  # keys 0 .. 63 alone


def test_functions_of_a_pattern_without_head_counts() -> None:
    pattern = sparsec.parse("pattern p { causal  softcap 2  attend sink(4) | window(9) }").pattern()
    live = create_mask(mask_mod(pattern), 1, 3, 40, 40, device="cpu")
    assert torch.equal(live[0], pattern.mask(40, 40, heads=3))
    bend = score_mod(pattern, device="cpu")
    assert bend is not None
    zero = torch.tensor(0)
    assert bend(torch.tensor(3.0), zero, zero, zero, zero) == 2 * torch.tanh(torch.tensor(1.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("causal  attend stride(4, phase = h)", "expected heads="),
        ("attend columns(-5 ..)", "expected n_q, for the pattern counts from the last key"),
        ("attend random(1, lane = 0)", "expected n_q, for the pattern"),
        ("documents  attend full", "expected cu_seqlens"),
    ],
)
def test_what_a_mask_mod_needs_to_know(text: str, message: str) -> None:
    with pytest.raises(CallError, match=message):
        mask_mod(sparsec.parse(f"pattern p {{ {text} }}").pattern())


def test_slopes_need_the_head_count() -> None:
    pattern = sparsec.parse("pattern p { alibi  attend causal }").pattern()
    with pytest.raises(CallError, match="expected heads="):
        score_mod(pattern)
    assert score_mod(pattern, heads=4) is not None
    with pytest.raises(CallError, match="expected a Pattern"):
        mask_mod("full")  # type: ignore[arg-type]
