"""The files of `examples/inputs`: each pattern's mask against its published meaning, written pair by pair by hand.

Inputs are drawn with what a caller may give: -1, entries past the end, later keys, a tensor for all sequences or for
each, for all heads, the KV groups or the query heads.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sparsec

FILES = Path(__file__).parents[3] / "examples" / "inputs"
BATCH, HEADS, GROUPS = 2, 4, 2
LENGTHS = [(1, 1), (1, 150), (70, 70), (150, 150), (33, 200), (200, 641), (40, 1600)]


@dataclass(frozen=True)
class Call:
    """One call's lengths, and where inputs are drawn from."""

    n_q: int
    n_k: int
    draw: random.Random = field(default_factory=lambda: random.Random(0))

    @property
    def first(self) -> int:
        return self.n_k - self.n_q

    def entries(self, count: int, stop: int) -> list[int]:
        """Distinct entries with some that are absent, in any order."""
        found = self.draw.sample(range(stop + 3), min(count, stop + 3))
        return [-1 if self.draw.random() < 0.2 else entry for entry in found]

    def lists(self, lanes: int, stop: int, *, count: int = 4, rows: bool = False) -> Tensor:
        """int [B or 1, lanes, (Nq,) count]."""
        batch = self.draw.choice([1, BATCH])
        width = min(count, stop + 3)
        shape = (batch, lanes, self.n_q) if rows else (batch, lanes)
        total = batch * lanes * (self.n_q if rows else 1)
        kind = self.draw.choice([torch.int32, torch.int64])
        return torch.tensor([self.entries(count, stop) for _ in range(total)], dtype=kind).view(*shape, width)


Inputs = Mapping[str, Tensor]
Sees = Callable[["Pair"], bool]


@dataclass(frozen=True)
class Pair:
    """A query and a key of one head: what the published rules speak of."""

    call: Call
    inputs: Inputs
    batch: int
    head: int
    i: int
    j: int

    @property
    def group(self) -> int:
        return self.head // (HEADS // GROUPS)

    def of_head(self, name: str) -> Tensor:
        """The head's part of an input: of a tensor for one sequence or all, for one head, the groups or the heads."""
        tensor = self.inputs[name]
        tensor = tensor[self.batch if len(tensor) > 1 else 0]
        lane = {1: 0, GROUPS: self.group, HEADS: self.head}[len(tensor)]
        return tensor[lane]

    def lists(self, name: str, entry: int) -> bool:
        """Whether the head's list has the entry."""
        return entry >= 0 and entry in self.of_head(name).tolist()

    def lists_for_query(self, name: str, entry: int) -> bool:
        return entry in self.of_head(name)[self.i - self.call.first].tolist()

    def opens(self, name: str, block: int) -> bool:
        """Whether the mask of tiles has the pair's tile set."""
        row = self.i // block - self.call.first // block
        return bool(self.of_head(name)[row, self.j // block])


def tiles(call: Call, lanes: int, block: int) -> Tensor:
    rows = (call.n_k - 1) // block - call.first // block + 1
    columns = (call.n_k - 1) // block + 1
    spare = call.draw.choice([0, 2])  # more than the call needs is ignored
    generator = torch.Generator().manual_seed(call.draw.randrange(1000))
    return torch.rand(call.draw.choice([1, BATCH]), lanes, rows + spare, columns + spare, generator=generator) < 0.4


def ends(call: Call) -> Tensor:
    """A length for each sequence: 0, inside the call, or past its end."""
    return torch.tensor([call.draw.choice([0, call.n_k // 2, call.n_k + 5]) for _ in range(BATCH)])


def forest(call: Call) -> Tensor:
    """Parents of drafts, numbered from the first draft; each comes after its parent."""
    count = min(call.n_q, 7, call.n_k)
    return torch.tensor([[call.draw.randrange(-1, n) for n in range(count)] for _ in range(BATCH)])


def tile_slash(pair: Pair, block: int = 64) -> bool:
    """Whether a listed distance brings the key to the query's tile: `block` keys back from the tile's first query."""
    start = pair.i // block * block
    return any(start - s <= pair.j < start - s + block for s in pair.of_head("slash").tolist() if s >= 0)


def of_the_tree(pair: Pair) -> bool:
    parents = pair.inputs["drafts"][pair.batch].tolist()
    base = pair.call.n_k - len(parents)
    if pair.j < base:
        return True
    at = pair.i - base
    while at >= 0:
        if at == pair.j - base:
            return True
        at = parents[at]
    return False


@dataclass(frozen=True)
class Case:
    file: str
    pattern: str
    inputs: Callable[[Call], Inputs]
    sees: Sees
    """Whether a pair with j <= i is in the pattern: `causal` is tested apart."""
    params: Mapping[str, object] = field(default_factory=dict)


CASES = [
    Case(
        "minference",
        "minference",
        lambda call: {"vertical": call.lists(HEADS, call.n_k), "slash": call.lists(HEADS, call.n_k)},
        lambda pair: pair.lists("vertical", pair.j) or tile_slash(pair),
    ),
    Case(
        "flexprefill",
        "flexprefill",
        lambda call: {
            "vertical": call.lists(HEADS, call.n_k // 128, count=1),
            "slash": call.lists(HEADS, call.n_k // 128, count=1),
            "picks": tiles(call, HEADS, 128),
        },
        lambda pair: (
            pair.lists("vertical", pair.j // 128)
            or pair.lists("slash", pair.i // 128 - pair.j // 128)
            or pair.opens("picks", 128)
        ),
    ),
    Case("xattention", "xattention", lambda call: {"picks": tiles(call, HEADS, 128)}, lambda p: p.opens("picks", 128)),
    Case(
        "seer_attention", "seer_attention", lambda call: {"gate": tiles(call, HEADS, 64)}, lambda p: p.opens("gate", 64)
    ),
    Case(
        "seer_attention",
        "seer_attention_decode",
        lambda call: {"gate": call.lists(GROUPS, call.n_k // 64, rows=True)},
        lambda pair: pair.lists_for_query("gate", pair.j // 64) or pair.i // 64 == pair.j // 64,
    ),
    Case(
        "nsa",
        "nsa_selected",
        lambda call: {"picks": call.lists(GROUPS, call.n_k // 64, rows=True)},
        lambda pair: pair.lists_for_query("picks", pair.j // 64),
    ),
    Case("nsa", "nsa_window", lambda call: {}, lambda pair: pair.i - pair.j < 512),
    Case(
        "nsa",
        "nsa_united",
        lambda call: {"picks": call.lists(GROUPS, call.n_k // 64, rows=True)},
        lambda pair: pair.lists_for_query("picks", pair.j // 64) or pair.i - pair.j < 20,
        {"local": 20},
    ),
    Case(
        "moba",
        "moba",
        lambda call: {"picks": call.lists(HEADS, call.n_k // 512, count=1, rows=True)},
        lambda pair: pair.lists_for_query("picks", pair.j // 512) or pair.i // 512 == pair.j // 512,
    ),
    Case(
        "deepseek_dsa",
        "deepseek_dsa",
        lambda call: {"picks": call.lists(1, call.n_k, count=40, rows=True)},
        lambda pair: pair.lists_for_query("picks", pair.j),
    ),
    Case(
        "minimax_msa",
        "minimax_msa",
        lambda call: {"picks": call.lists(GROUPS, call.n_k // 128, count=2, rows=True)},
        lambda pair: pair.lists_for_query("picks", pair.j // 128),
    ),
    Case(
        "quest",
        "quest_pages",
        lambda call: {"prompt": ends(call), "picks": call.lists(HEADS, call.n_k // 16, rows=True)},
        lambda pair: (
            pair.i < int(pair.inputs["prompt"][pair.batch])
            or pair.lists_for_query("picks", pair.j // 16)
            or pair.i // 16 == pair.j // 16
        ),
    ),
    Case("quest", "quest_dense", lambda call: {}, lambda pair: True),
    Case(
        "lserve",
        "lserve",
        lambda call: {"prompt": ends(call), "pages": call.lists(GROUPS, call.n_k // 64, rows=True)},
        lambda pair: (
            pair.j < 9 or pair.i - pair.j < 30
            if pair.group == 1
            else pair.i < int(pair.inputs["prompt"][pair.batch])
            or pair.lists_for_query("pages", pair.j // 64)
            or pair.i // 64 == pair.j // 64
        ),
        {"start": 9, "local": 30},
    ),
    Case("tree_verification", "tree_verification", lambda call: {"drafts": forest(call)}, of_the_tree),
]


PAIRS = 150  # of those in the mask, and of those outside


def drawn_pairs(mask: Tensor, draw: random.Random) -> list[list[int]]:
    found = mask.nonzero().tolist()
    return draw.sample(found, min(PAIRS, len(found)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.pattern)
def test_mask(case: Case) -> None:
    pattern = sparsec.load(FILES / f"{case.file}.sparse").pattern(case.pattern, **case.params)
    met = [0, 0]
    for seed, (n_q, n_k) in enumerate(LENGTHS):
        call = Call(n_q, n_k, random.Random(seed))
        inputs = case.inputs(call)
        mask = pattern.mask(n_q, n_k, heads=HEADS, kv_heads=GROUPS, inputs=inputs).expand(BATCH, HEADS, n_q, n_k)
        causal = torch.ones(n_q, n_k, dtype=torch.bool).tril(call.first)
        assert not (mask & ~causal).any()
        for seen, pairs in enumerate((~mask & causal, mask)):
            for batch, head, row, j in drawn_pairs(pairs, call.draw):
                pair = Pair(call, inputs, batch, head, call.first + row, j)
                assert case.sees(pair) == bool(seen), (n_q, n_k, batch, head, row, j)
                met[seen] += 1
    assert met[1] > 200
    assert met[0] > {"quest_dense": -1, "tree_verification": 100}.get(case.pattern, 200)


def test_every_pattern_has_a_case() -> None:
    files = sorted(FILES.glob("*.sparse"))
    written = {(path.stem, name) for path in files for name in sparsec.load(path).patterns}
    assert written == {(case.file, case.pattern) for case in CASES}
    assert len(files) == 11
