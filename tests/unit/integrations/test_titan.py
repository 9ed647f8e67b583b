"""TorchTitan, where it is installed: its Llama with packed documents, by patterns, against dense masked attention."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn import functional

import sparsec

pytest.importorskip("torchtitan", reason="TorchTitan is in nobody's extras")

from sparsec.integrations.titan import SparseInnerAttention, with_patterns

BODY = "causal  documents  attend sink(2) | window(7)"
PATTERN = f"pattern packed {{ {BODY} }}"
ENDS = (0, 11, 32, 64)
"""Of the documents of two rows of 32 tokens, packed."""


def llama() -> Any:
    from torchtitan.models.llama3 import _debugmodel

    config = _debugmodel("varlen")
    config.layers = config.layers[:2]
    return config


def logits(config: Any) -> list[torch.Tensor]:
    from torchtitan.models.common.attention import create_varlen_metadata_for_document

    torch.manual_seed(0)
    model = config.build()
    model.init_states()
    positions = torch.cat([torch.arange(b - a) for a, b in pairwise(ENDS)]).view(2, 32)
    tokens = torch.randint(2048, (2, 32), generator=torch.Generator().manual_seed(1))
    out = model(tokens, positions, create_varlen_metadata_for_document(positions))
    out.square().mean().backward()
    return [out, *(p.grad for p in model.parameters())]


def test_a_model_of_torchtitan(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchtitan.models.common.attention import VarlenAttention

    ours = logits(with_patterns(llama(), PATTERN, target="torch"))
    i = torch.arange(64)
    document = torch.bucketize(i, torch.tensor(ENDS[1:]), right=True)
    live = (i[:, None] >= i) & (document[:, None] == document) & ((i < 2) | (i[:, None] - i < 7))

    def masked(self: Any, q: Any, k: Any, v: Any, **_: Any) -> Any:
        packed = (each.reshape(1, 64, *each.shape[2:]).transpose(1, 2) for each in (q, k, v))
        out = functional.scaled_dot_product_attention(*packed, live, enable_gqa=True)
        return out.transpose(1, 2).reshape(q.shape)

    monkeypatch.setattr(VarlenAttention, "forward", masked)
    for mine, theirs in zip(ours, logits(llama()), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("other", "fits"), [("window(7)", True), ("window(9)", False)])
def test_a_rank_has_some_of_the_heads(other: str, fits: bool) -> None:
    """Where the sets of all heads are equal, however they are written."""
    from torchtitan.models.common.attention import create_varlen_metadata_for_document

    text = f"pattern p {{ causal  documents  where h % 2 < 1 attend window(7)  otherwise attend {other} }}"
    pattern = sparsec.parse(text).pattern("p")
    layer = SparseInnerAttention.Config(pattern=pattern, heads=4, kv_heads=2, target="torch").build()
    q, k = torch.randn(1, 20, 2, 16), torch.randn(1, 20, 1, 16)
    documents = create_varlen_metadata_for_document(torch.arange(20)[None])
    if not fits:
        with pytest.raises(sparsec.CallError, match="expected all 4 heads on a rank"):
            layer(q, k, k, attention_masks=documents)
        return
    i = torch.arange(20)
    live = (i[:, None] >= i) & (i[:, None] - i < 7)
    wanted = functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, k)), live, enable_gqa=True)
    found = layer(q, k, k, attention_masks=documents)
    torch.testing.assert_close(found, wanted.transpose(1, 2), rtol=1e-4, atol=1e-5)


def test_what_it_refuses() -> None:
    for text, said in (
        ("pattern p { causal  attend full }", "expected a pattern with `documents`, since TorchTitan packs them"),
        (f"pattern p {{ {BODY}  learned_sink }}", "expected a pattern without `learned_sink`"),
    ):
        pattern = sparsec.parse(text).pattern("p")
        with pytest.raises(sparsec.CallError, match=said):
            SparseInnerAttention.Config(pattern=pattern, heads=2, kv_heads=2).build()
    with pytest.raises(sparsec.CallError, match="model 'm': expected layers=3, as its file says, got layers=2"):
        with_patterns(llama(), f"{PATTERN} model m {{ layers 3  use packed }}")
