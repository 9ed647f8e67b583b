"""Gradients of keys whose query tiles several programs share, in Triton's interpreter, against dense attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dense_gradients import Score
from torch import Tensor
from triton_harness import compare, in_interpreter, inputs, kernel_of, passes_in_the_interpreter, run

import sparsec
from sparsec.backends.triton import splits
from sparsec.backends.triton.kernel import interpreted


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Of each launch in parts, how many each key tile has: calls are shared out that are short, to 60 programs more."""
    numbers: list[Tensor] = []
    honest = splits.shared_tasks

    def noted(*arguments: Any) -> tuple[Tensor, Tensor]:
        tasks, joined = honest(*arguments)
        numbers.append(joined[:, 1])
        return tasks, joined

    monkeypatch.setattr(splits, "shared_tasks", noted)
    for name, number in (("LONG_WALK", 1), ("SHORTEST_PART", 1), ("PARTS_A_PROCESSOR", 60)):
        monkeypatch.setattr(splits, name, number)
    return numbers


@in_interpreter
@pytest.mark.parametrize("tiles", [1, 3, 64, 150])
@pytest.mark.parametrize(("most", "shortest"), [(1, 1), (7, 1), (50, 1), (50, 9)])
def test_every_step_is_one_task_s(tiles: int, most: int, shortest: int) -> None:
    made = torch.Generator().manual_seed(tiles * 100 + most)
    for heavy in (0, 1, tiles):
        steps = torch.randint(0, 3, (tiles, 32), generator=made, dtype=torch.int32)
        steps[:heavy] *= 40
        steps[torch.rand(tiles, generator=made) < 0.2] = 0
        tasks, joined = splits.shared_tasks(steps, most, shortest)
        assert tasks.shape == (most + tiles, 4) and tasks[most:, 0].tolist() == list(range(tiles))
        share = max(-(-int(steps.sum()) // most), shortest)
        numbers = []
        for tile, (first, count) in enumerate(joined.tolist()):
            own = sorted(task[1:].tolist() for task in tasks if task[0] == tile)
            assert [begin for begin, *_ in own] == [0, *(past for _, past, _ in own[:-1])] and own[-1][1] == 32
            assert [part for *_, part in own] == ([-1] if count == 0 else list(range(first, first + count)))
            sums = [int(steps[tile, begin:past].sum()) for begin, past, _ in own]
            assert len(own) <= 32 and (len(own) == 1 or (count == len(own) and min(sums) > 0))
            fair = sum(sums) / max(1, min(-(-sum(sums) // share), 32))
            assert max(sums) <= fair + int(steps[tile].max()), "a part has a fair share, and at most a stretch more"
            numbers += range(first, first + count)
        assert numbers == list(range(len(numbers))) and len(numbers) <= most + min(most, tiles)


S2 = "block 16 causal attend window(2b) | stride(3b, phase = -h)"
BOTH = "block 16 attend window(1b, ahead = 1b) | sink(16) | rows(0 .. 20)"
APART = "block 16 causal where h in [0, 3] attend full otherwise attend sink(3)"
RANDOM = "block 16 causal attend sink(1b) | random(2b, seed = 3)"
BENT = "block 16 causal softcap 3 alibi learned_sink attend window(20) | sink(5)"
LATER = "block 16 attend rows(10 ..) & columns(.. 90)"


@in_interpreter
@pytest.mark.parametrize(
    ("text", "nq", "nk", "start"),
    [(S2, 150, 150, 0), (S2, 61, 100, 39), (S2, 40, 23, 100), (BOTH, 100, 100, 0), (APART, 90, 90, 0),
     (RANDOM, 90, 90, 0), (BENT, 90, 90, 0), (LATER, 99, 99, 0), ("causal attend full", 17, 130, 7)],
)  # fmt: skip
def test_gradients(text: str, nq: int, nk: int, start: int, found: list[Tensor]) -> None:
    pattern = sparsec.parse(f"pattern p {{ {text} }}").pattern()
    resolved = pattern.resolve(4, 2)
    most = max(nk, start + nq)
    seen = pattern.mask(most, most, heads=4, kv_heads=2)[:, start : start + nq, :nk]
    sink = torch.linspace(-1.0, 1.0, 4) if "learned_sink" in text else None
    bent = Score(softcap=3.0, alibi=True, sink=sink) if text is BENT else Score()
    compare(kernel_of(resolved), inputs(4, 2, nq, nk), seen, start, bent)
    assert any(int(each.max()) > 1 for each in found)


@in_interpreter
@pytest.mark.parametrize("restart", [False, True])
def test_documents(restart: bool, found: list[Tensor]) -> None:
    text = f"pattern p {{ block 16 documents{' restart' * restart} causal attend full }}"
    resolved = sparsec.parse(text).pattern().resolve(2, 1)
    ends = torch.tensor([0, 40, 40, 41, 110], dtype=torch.int32)
    of = torch.bucketize(torch.arange(110), ends[1:].long(), right=True)
    seen = ((of[:, None] == of) & torch.ones(110, 110, dtype=torch.bool).tril()).expand(2, -1, -1)
    compare(kernel_of(resolved), inputs(2, 1, 110, 110), seen, 0, cu_seqlens=ends)
    assert any(int(each.max()) > 1 for each in found)


@in_interpreter
def test_what_no_query_sees_and_what_is_not_finite(found: list[Tensor]) -> None:
    """Of the parts of a key tile those alone have a NaN whose queries do; keys before it hold what they would."""
    kernel = kernel_of(
        sparsec.parse("pattern p { block 16 causal attend sink(20) | window(1b) }").pattern().resolve(2, 1)
    )
    q, k, v, g, grad_lse = inputs(2, 1, 128, 128)
    before = run(kernel, (q, k, v, g, grad_lse), 0, None, None)
    q[0, 1, 100], g[0, 1, 100, 3] = torch.nan, torch.inf
    _, _, dq, dk, dv = run(kernel, (q, k, v, g, grad_lse), 0, None, None)
    assert dk[0, 0, :20].isnan().all() and dk[0, 0, 96:101].isnan().all() and dv[0, 0, :20].isnan().all()
    for got, clean in ((dk, before[3]), (dv, before[4])):
        rest = [*range(20, 96), *range(101, 128)]
        torch.testing.assert_close(got[0, 0, rest], clean[0, 0, rest])
    assert torch.equal(dq[0, 0], before[2][0, 0])
    assert any(int(each.max()) > 1 for each in found)


@in_interpreter
def test_a_call_again_and_its_replays_have_the_same_bits(found: list[Tensor]) -> None:
    attn = sparsec.compile(f"pattern p {{ {S2} }}", heads=4, kv_heads=2, head_dim=16, target="triton", device="cpu")
    leaves = [t.requires_grad_() for t in inputs(4, 2, 80, 80)[:3]]
    runs = [torch.autograd.grad(attn(*leaves).square().sum(), leaves) for _ in range(4)]
    assert all(torch.equal(a, b) for again in runs[1:] for a, b in zip(again, runs[0], strict=True))
    assert 0 < len(found) < 4, "a replay finds its tasks by the launch alone"


@in_interpreter
def test_what_a_long_call_holds_beside_its_tensors_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    attn = sparsec.compile(
        "pattern p { causal attend sink(4) | window(16) }", head_dim=16, target="triton", device="cpu", heads=1
    )
    rooms: list[int] = []
    honest = torch.empty

    def noted(*size: Any, **named: Any) -> Tensor:
        if size and isinstance(size[0], int):
            rooms.append(size[0])
        return honest(*size, **named)

    monkeypatch.setattr(splits, "PARTS_A_PROCESSOR", 5)
    monkeypatch.setattr(torch, "empty", noted)
    for tokens in (500, 1000):
        q = honest(1, 1, tokens, 16).normal_().requires_grad_()
        attn(q, q, q).sum().backward()
    assert len(rooms) == 2 and rooms[0] == rooms[1]
