"""Prices of caches against figures reckoned by hand, and against the live keys that the reference counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sparsec
from sparsec.analysis.cost import Geometry, group_prices, price
from sparsec.pipeline import Lowered
from sparsec.plan.kv.printer import print_region
from sparsec.reference.mask import mask

EXAMPLES = Path(__file__).parents[3] / "examples"
GEOMETRY = Geometry(32, 8, 128, 128, "bfloat16")
TOKENS = 32_768


def layers(file: str, name: str) -> list[sparsec.Pattern]:
    model = sparsec.load(EXAMPLES / file).model(name)
    return [model.layer(layer) for layer in range(len(model))]


def test_dense_keeps_everything() -> None:
    layout = sparsec.load(EXAMPLES / "dense.sparse").pattern().cache_layout(32, 8)
    found = price([layout] * 3, GEOMETRY, 1000)
    assert found.bytes == found.dense_bytes == 3 * 1000 * 8 * 2 * 128 * 2 and found.saved == 0


def test_longgen_saves_what_its_paper_says() -> None:
    """62% at 128k tokens (arXiv 2410.01485), of which 11 full layers of 32 leave at most 65.6% to save."""
    layouts = [pattern.cache_layout(32, 8) for pattern in layers("longgen.sparse", "longgen")]
    assert 0.60 < price(layouts, GEOMETRY, 131_072).saved < 0.65


def test_phi3_small_keeps_half_of_a_sparse_layer() -> None:
    """Its phases follow the query heads, so that each group keeps 4 of 8 classes: 50.4% of the keys at 128k tokens."""
    (pattern,) = {id(p): p for p in layers("phi3_small.sparse", "phi3_small") if p.name.endswith("sparse")}.values()
    layout = pattern.cache_layout()
    assert layout.slots(131_072) / (8 * 131_072) == pytest.approx(0.504, abs=0.005)
    (group,) = group_prices(layout, 131_072)
    assert group.groups == tuple(range(8)) and "4 of every 8 blocks of 64 keys" in group.keeps


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("lm_infinite.sparse", None),
        ("mistral.sparse", None),
        ("s2.sparse", "s2"),
        ("s2.sparse", "s2_by_head"),
        ("duo_attention.sparse", "duo_attention"),
        ("duo_attention.sparse", "duo_streaming"),
        ("llama4_chunked.sparse", "llama4_chunk"),
        ("longgen.sparse", "longgen_blocks"),
        ("longgen.sparse", "longgen_sink"),
    ],
)
def test_a_cache_has_little_more_than_the_live_keys(file: str, name: str | None) -> None:
    """At most 1.15 times the keys that the last query of a block, or of a chunk, attends to."""
    pattern = sparsec.load(EXAMPLES / file).pattern(name)
    heads, kv_heads = pattern.heads or 32, pattern.kv_heads or 8
    resolved = pattern.resolve(heads, kv_heads)
    seen = mask(resolved, 1, TOKENS)[:, 0]
    needed = seen.view(kv_heads, heads // kv_heads, TOKENS).any(dim=1).sum()
    slots = Lowered(resolved).layout.slots(TOKENS)
    assert int(needed) <= slots <= 1.15 * int(needed), (slots, int(needed))


def test_words_for_regions() -> None:
    texts = {
        "window(5)": "the latest 5 keys",
        "sink(7)": "the first 7 keys",
        "sink(1)": "the first key",
        "columns(10 ..)": "every key from 10",
        "stride(4b, phase=2)": "1 of every 4 blocks of 64 keys",
        "stride(4b) & window(100)": "1 of every 4 blocks of 64 keys, of the latest 100",
        "columns(10 .. 20)": "keys 10..20",
        "stride(4) & columns(10 ..)": "1 of every 4 keys from 10",
        "full": "every key",
    }
    for text, words in texts.items():
        ((region,),) = sparsec.parse(f"pattern p {{ causal attend {text} }}").pattern().cache_layout(1, 1).groups
        assert print_region(region) == words


def test_explain_of_a_module() -> None:
    module = sparsec.compile(
        "pattern p { causal attend window(8) }", heads=2, kv_heads=1, head_dim=16, target="torch", dtype=torch.float32
    )
    (part,) = module.explain(100).parts
    assert part.live_pairs == 2 * (100 * 8 - 28) and part.dense_pairs == 2 * 5050
    assert part.cache is not None and part.cache.bytes == 8 * 2 * 16 * 4
