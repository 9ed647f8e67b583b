"""The mass of keys of calls with a cache, in Triton's interpreter, against the reference's over all keys."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor
from triton_harness import in_interpreter, interpreted, passes_in_the_interpreter

import sparsec
from sparsec.runtime.module import SparseAttention

HEADS, KV_HEADS, DIM, VALUE_DIM = 4, 2, 16, 24
PATTERNS = {
    "bent scores": "softcap 5 alibi learned_sink attend (sink(3) | window(20) | stride(7, phase = h)) & causal",
    "drawn": "block 16 attend (window(1b) | random(2)) & causal",
    "biased": "key_bias merged softcap 5 attend (window(6) | marks) & causal",
    "lists of rows": "block 16 softcap 3 attend (window(3) | pages | listed | picks) & causal",
    "by group": "where g == 0 attend marks & causal otherwise attend (window(20) | marks) & causal",
}
INPUTS = {"marks": "tokens", "picks": "columns", "pages": "rows(blocks)", "listed": "rows", "merged": "weights"}
CALLS, FEW = ((20, 13), (1, 1), (17, 5), (2, 3)), ((8, 5), (1, 1), (4, 2))
KEPT = 1
"""After which call marks are taken away."""
"""The tokens of each sequence, and fewer of them for lists of rows, which are taken row by row."""


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


def attention(target: str, text: str) -> SparseAttention:
    declared = " ".join(f"input {name} : {kind}" for name, kind in INPUTS.items() if name in re.findall("[a-z]+", text))
    text = f"pattern p {{ heads {HEADS} kv {KV_HEADS} {declared} {text} }}"
    attn = sparsec.compile(text, head_dim=DIM, value_dim=VALUE_DIM, target=target, device="cpu")
    if attn.sink is not None:
        torch.nn.init.normal_(attn.sink, generator=torch.Generator().manual_seed(1))
    return attn.requires_grad_(False)


def given(attn: SparseAttention, rows: int, stop: int, generator: torch.Generator) -> dict[str, Tensor]:
    """What is said of `rows` new tokens of two sequences, the longest of which they bring to `stop`."""
    names, heads = {each.name for each in attn.inputs}, (2, KV_HEADS, rows)
    marks = torch.rand(heads, generator=generator) < 0.3
    picks = torch.rand((2, HEADS, stop), generator=generator).argsort(-1)[..., :5].int()
    rest = {
        name: torch.rand((2, HEADS, rows, -(-stop // width) + 1), generator=generator).argsort(-1)[..., :3].int() - 1
        for name, width in (("pages", 16), ("listed", 1))
    }
    merged = torch.where(torch.rand(heads, generator=generator) < 0.1, -torch.inf, torch.rand(heads))
    found = {"marks": marks, "picks": picks, "merged": merged, **rest}
    return {name: each for name, each in found.items() if name in names}


@in_interpreter
@pytest.mark.parametrize("text", PATTERNS.values(), ids=PATTERNS)
def test_it_is_the_sum_of_the_dense_probabilities(text: str) -> None:
    attn, oracle, generator = attention("triton", text), attention("reference", text), torch.Generator().manual_seed(2)
    kv = attn.new_cache(2, 80)
    kv.keys.fill_(torch.nan)
    seen: list[dict[str, Tensor]] = [{} for _ in range(2)]
    for nth, counts in enumerate(FEW if "pages" in text else CALLS):
        new, stop = max(counts), max(map(sum, zip(kv.lengths, counts, strict=True)))
        q, k, v = (
            torch.randn(2, heads, new, dim, generator=generator)
            for heads, dim in ((HEADS, DIM), (KV_HEADS, DIM), (KV_HEADS, VALUE_DIM))
        )
        inputs = given(attn, new, stop, generator)
        call = {"lengths": counts, "inputs": inputs or None}
        before = kv.fork()
        mass = attn(q, k, v, cache=kv, return_mass=True, **call)[1]
        assert mass.shape == (2, HEADS, kv.length)
        if nth == 2:  # two runs give the same bits, also of some groups alone
            groups = attn(q, k, v, cache=before, return_mass=[1], **call)[1]
            assert torch.equal(groups[:, 2:], mass[:, 2:]) and not groups[:, :2].any()
        for b, count in enumerate(counts):
            own = {"k": k, "v": v, **{name: inputs[name] for name in inputs.keys() & {"marks", "merged"}}}
            for name, each in own.items():
                fresh = each[b : b + 1, :, new - count :]
                seen[b][name] = torch.cat([seen[b][name], fresh], 2) if name in seen[b] else fresh
            length = seen[b]["k"].shape[2]
            said = {name: seen[b][name] for name in own.keys() - {"k", "v"}}
            said |= {name: inputs[name][b : b + 1, :, new - count :] for name in inputs.keys() & {"pages", "listed"}}
            said |= {name: inputs[name][b : b + 1] for name in inputs.keys() & {"picks"}}
            _, wanted = oracle(
                *(q[b : b + 1, :, new - count :], seen[b]["k"], seen[b]["v"]),
                q_offset=length - count,
                inputs=said or None,
                return_mass=True,
            )
            torch.testing.assert_close(mass[b : b + 1, :, :length], wanted, rtol=0.0, atol=1e-5)
            assert not mass[b, :, length:].any()
        if nth == KEPT and "marks" in inputs:
            for own in seen:
                own["marks"] = own["marks"] & (torch.rand(own["marks"].shape, generator=generator) < 0.7)
            kept = torch.zeros(2, KV_HEADS, kv.length, dtype=torch.bool)
            for b, own in enumerate(seen):
                kept[b, :, : own["marks"].shape[2]] = own["marks"]
            kv.keep("marks", kept)
