"""The selectors of `examples/inputs` against the published rules, on random queries and keys."""

from __future__ import annotations

import json
from pathlib import Path

import flexprefill
import minference
import moba
import published
import pytest
import quest
import torch
import xattention
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

LENGTHS = [(200, 200), (67, 230), (130, 261)]
lengths = pytest.mark.parametrize(("n_q", "n_k"), LENGTHS)


def drawn(
    n_q: int, n_k: int, *, sharp: float = 1.0, heads: int = 4, groups: int = 2, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Queries and keys in float64: `sharp` makes some keys and pairs at some distances stand out."""
    draw = torch.Generator().manual_seed(seed)
    q, k = (
        torch.randn(2, count, n, 8, dtype=torch.float64, generator=draw) for count, n in ((heads, n_q), (groups, n_k))
    )
    return sharp * q, k


def heads_of(q: Tensor, k: Tensor) -> list[tuple[tuple[int, int], list[list[float]], list[list[float]]]]:
    share = q.shape[1] // k.shape[1]
    return [((b, h), q[b, h].tolist(), k[b, h // share].tolist()) for b in range(len(q)) for h in range(q.shape[1])]


def entries(listed: Tensor) -> list[int]:
    """What a list holds; entries are distinct, and absent ones are -1."""
    present = [int(entry) for entry in listed if entry >= 0]
    assert len(set(present)) == len(present)
    assert all(entry >= -1 for entry in listed)
    return present


def tiles(picks: Tensor, first: int, block: int) -> set[tuple[int, int]]:
    """The tiles up to the diagonal of a mask whose rows start at the block of query `first`."""
    return {(first // block + a, b) for a, b in picks.nonzero().tolist() if b <= first // block + a}


@lengths
@pytest.mark.parametrize("sharp", [1.0, 3.0])
def test_minference(n_q: int, n_k: int, sharp: float) -> None:
    q, k = drawn(n_q, n_k, sharp=sharp)
    table = [
        [],
        [("vertical_and_slash", 60, 140), ("stream_llm", 9, 9), ("vertical_and_slash", 3, 120), ("block_sparse", 1, 1)],
    ]
    found = minference.select(1, q, k, table=table)
    assert sorted(found) == ["picks", "slash", "vertical"]
    for (b, h), rows, keys in heads_of(q, k):
        kind, vertical, slash = table[1][h]
        columns, distances = entries(found["vertical"][b, h]), entries(found["slash"][b, h])
        if kind == "vertical_and_slash":
            assert (set(columns), set(distances)) == published.minference(rows, keys, vertical, slash)
            assert (len(columns), len(distances)) == (max(vertical, 30), max(slash, 50))
        else:
            assert columns == distances == []
        if kind == "block_sparse":
            wanted = published.minference_blocks(rows, keys, 64, 100)
            assert tiles(found["picks"][b, h], n_k - n_q, 64) == wanted


def test_minference_takes_as_many_blocks_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minference, "TOP", 3)
    q, k = drawn(300, 500)
    picks = minference.select(0, q, k, table=[[("block_sparse", 0, 0)] * 4])["picks"]
    for (b, h), rows, keys in heads_of(q, k):
        assert tiles(picks[b, h], 200, 64) == published.minference_blocks(rows, keys, 64, 3)
    assert int(picks.sum(-1).max()) == 3


def test_minference_reads_its_table(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps([{"1": ["stream_llm", 4, 8, 0.5], "0": ["vertical_and_slash", 30, 800, 1.5]}]))
    assert minference.read_table(path) == [[("vertical_and_slash", 30, 800), ("stream_llm", 4, 8)]]
    q, k = drawn(80, 80, heads=2)
    found = minference.select(0, q, k, table=minference.read_table(path))
    assert list(found) == ["vertical", "slash"]
    assert found["slash"].shape == (2, 2, 80) and bool((found["slash"][:, 1] == -1).all())


@lengths
@pytest.mark.parametrize(
    ("sharp", "gamma", "tau"), [(1.0, 0.9, 0.1), (4.0, 0.8, 0.25), (0.3, 0.5, 0.05), (2.0, 0.99, 0.5)]
)
def test_flexprefill(n_q: int, n_k: int, sharp: float, gamma: float, tau: float) -> None:
    q, k = drawn(n_q, n_k, sharp=sharp)
    found = flexprefill.select(0, q, k, gamma=gamma, tau=tau, block=16)
    for (b, h), rows, keys in heads_of(q, k):
        aware, columns, distances, picks = published.flexprefill(rows, keys, gamma, tau, 16)
        assert set(entries(found["vertical"][b, h])) == columns | {0}
        assert set(entries(found["slash"][b, h])) == distances | {0}
        assert tiles(found["picks"][b, h], n_k - n_q, 16) == picks
        assert bool(found["picks"][b, h].any()) == aware


def test_flexprefill_meets_heads_of_both_kinds() -> None:
    q, k = drawn(600, 600, sharp=4.0)
    q[:, ::2] *= 0.05
    aware = flexprefill.select(0, q, k, block=16)["picks"].any(-1).any(-1)
    assert aware.tolist() == [[True, False, True, False]] * 2


@lengths
@pytest.mark.parametrize(("threshold", "stride"), [(0.9, 8), (0.5, 4), (0.97, 16), (0.9, 32)])
@pytest.mark.parametrize("sharp", [1.0, 4.0])
def test_xattention(n_q: int, n_k: int, threshold: float, stride: int, sharp: float) -> None:
    q, k = drawn(n_q, n_k, sharp=sharp)
    picks = xattention.select(0, q, k, threshold=threshold, stride=stride, block=32)["picks"]
    assert picks.shape == (2, 4, (n_k + 31) // 32 - (n_k - n_q) // 32, (n_k + 31) // 32)
    for (b, h), rows, keys in heads_of(q, k):
        assert tiles(picks[b, h], n_k - n_q, 32) == published.xattention(rows, keys, threshold, stride, 32)


@pytest.mark.parametrize("n_k", [1, 16, 17, 100, 321])
@pytest.mark.parametrize("budget", [1, 4, 64])
def test_quest(n_k: int, budget: int) -> None:
    q, k = drawn(1, n_k)
    found = quest.select(2, q, k, budget=budget)
    assert found["prompt"].tolist() == [0, 0]
    for (b, h), rows, keys in heads_of(q, k):
        assert set(entries(found["picks"][b, h, 0])) == published.quest(rows[0], keys, budget, 16)


def test_quest_reads_all_of_a_prompt() -> None:
    assert quest.select(1, *drawn(20, 33)) == {}
    found = quest.select(2, *drawn(20, 33))
    assert found["prompt"].tolist() == [33, 33]
    assert found["picks"].shape == (2, 4, 20, 0)


@lengths
@pytest.mark.parametrize("top", [1, 3, 40])
def test_moba(n_q: int, n_k: int, top: int) -> None:
    q, k = drawn(n_q, n_k)
    picks = moba.select(0, q, k, top=top, chunk=32)["picks"]
    for (b, h), rows, keys in heads_of(q, k):
        for at, row in enumerate(rows):
            position = n_k - n_q + at
            taken = {*entries(picks[b, h, at]), position // 32}
            assert taken == published.moba(row, keys, position, top, 32)
            assert len(taken) <= top


class Largest(TorchDispatchMode):
    """Watches the size of every tensor that is made, and that nothing asks the host for a value."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        assert func is not torch.ops.aten._local_scalar_dense.default, "a value is read back"
        out = func(*args, **kwargs or {})
        for each in out if isinstance(out, tuple | list) else (out,):
            if isinstance(each, Tensor):
                self.numel = max(self.numel, each.numel())
        return out


SELECTORS = {
    "minference": lambda q, k: minference.select(
        0, q, k, table=[[("vertical_and_slash", 1000, 6096), ("block_sparse", 0, 0)]]
    ),
    "flexprefill": lambda q, k: flexprefill.select(0, q, k),
    "xattention": lambda q, k: xattention.select(0, q, k),
    "quest": lambda q, k: quest.select(2, q[:, :, -1:], k),
    "moba": lambda q, k: moba.select(0, q, k),
}


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_selector_makes_a_matrix_of_queries_and_keys(name: str, dtype: torch.dtype) -> None:
    n = 8192
    q, k = (x.to(dtype) for x in (torch.randn(1, 2, n, 8), torch.randn(1, 1, n, 8)))
    with Largest() as watched:
        found = SELECTORS[name](q, k)
    assert watched.numel <= 2 * 128 * n < n * n
    for tensor in found.values():
        assert tensor.dtype in (torch.bool, torch.int64)
