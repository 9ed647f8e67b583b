"""A selector, its pattern and attention together: what is attended to is what the selector chose, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import flexprefill
import minference
import moba
import pytest
import quest
import torch
import xattention
from torch import Tensor

import sparsec
from sparsec.diagnostics.source import SourceFile
from sparsec.imports.minference import minference_model
from sparsec.program import Pattern
from sparsec.reference import attention

pytestmark = pytest.mark.kernels
FILES = Path(__file__).parents[3] / "examples" / "inputs"
HEADS, GROUPS, DIM = 4, 2, 8
TABLE = [
    {"0": ["vertical_and_slash", 40, 120, 1.0], "1": ["stream_llm", 16, 100, 1.0], "2": ["block_sparse", 1, 1, 1.0]},
    {str(head): ["vertical_and_slash", 30 + head, 100, 1.0] for head in range(3)},
    {str(head): ["stream_llm", 4, 64, 1.0] for head in range(3)},
]
Select = Callable[[int, Tensor, Tensor], dict[str, Tensor]]


def qkv(n_q: int, n_k: int, heads: int = HEADS, groups: int = GROUPS) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(n_q + n_k)
    return (
        2 * torch.randn(2, heads, n_q, DIM, generator=draw),
        torch.randn(2, groups, n_k, DIM, generator=draw),
        torch.randn(2, groups, n_k, DIM, generator=draw),
    )


def check(pattern: Pattern, inputs: dict[str, Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Holds a call against dense attention under the pattern's mask, which it gives."""
    heads, groups = q.shape[1], k.shape[1]
    attn = sparsec.compile(pattern, heads=heads, kv_heads=groups, head_dim=DIM, target="torch")
    out, lse = attn(q, k, v, return_lse=True, inputs=inputs or None, check_inputs=True)
    mask = pattern.mask(q.shape[2], k.shape[2], heads, groups, inputs=inputs or None)
    mask = mask.expand(len(q), heads, q.shape[2], k.shape[2])
    wanted, wanted_lse = attention(q, k, v, mask)
    torch.testing.assert_close(out.double(), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse.double(), wanted_lse, atol=1e-5, rtol=1e-5)
    return mask


@pytest.mark.parametrize(("n_q", "n_k"), [(200, 200), (70, 1300)])
@pytest.mark.parametrize(
    ("file", "select"),
    [
        ("flexprefill", partial(flexprefill.select, gamma=0.5)),
        ("flexprefill", partial(flexprefill.select, tau=1.0, gamma=0.5)),
        ("xattention", partial(xattention.select, threshold=0.7)),
        ("moba", partial(moba.select, top=2)),
    ],
    ids=["flexprefill", "flexprefill by block means", "xattention", "moba"],
)
def test_prompts(file: str, select: Select, n_q: int, n_k: int) -> None:
    q, k, v = qkv(n_q, n_k)
    mask = check(sparsec.load(FILES / f"{file}.sparse").pattern(), select(0, q, k), q, k, v)
    assert mask.any(-1).all()
    causal = torch.ones(n_q, n_k, dtype=torch.bool).tril(n_k - n_q)
    assert n_k == 200 or mask.sum() < 0.95 * 2 * HEADS * causal.sum()


def test_quest_reads_the_prompt_and_then_pages() -> None:
    pages = sparsec.load(FILES / "quest.sparse").model("quest").layer(2)
    q, k, v = qkv(100, 100)
    mask = check(pages, quest.select(2, q, k, budget=4), q, k, v)
    assert bool((mask == torch.ones(100, 100, dtype=torch.bool).tril()).all())
    q, k, v = qkv(1, 333)
    mask = check(pages, quest.select(2, q, k, budget=4), q, k, v)
    assert mask.sum(-1).unique().tolist() == [3 * 16 + 333 % 16]


@pytest.mark.parametrize("layer", range(len(TABLE)))
def test_a_table_of_minference_is_imported_and_selected_from(tmp_path: Path, layer: int) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(TABLE))
    text, _ = minference_model(SourceFile(path.name, path.read_text()))
    pattern = sparsec.parse(text).model("minference").layer(layer)
    q, k, v = qkv(250, 250, heads=3, groups=1)
    inputs = minference.select(layer, q, k, table=minference.read_table(path))
    mask = check(pattern, inputs, q, k, v)
    assert set(inputs) == {each.name for each in pattern.resolve(3, 1).inputs}
    for head, (kind, sink, window, _) in enumerate(TABLE[layer][str(n)] for n in range(3)):
        if kind == "stream_llm":
            assert mask[:, head].sum(-1).max() == int(sink) + int(window)
        else:
            assert mask[:, head].diagonal(dim1=-2, dim2=-1).all()
