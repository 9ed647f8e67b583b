"""Records of launches whose kernels take addresses, as on a card: which argument is which, and what memory is made."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sparsec.backends.triton import replays
from sparsec.backends.triton.launches import VECTOR_BYTES, Derived, Launched, Recorded
from sparsec.backends.triton.replays import Lasting, Replays, given_to

NONE = Lasting((), (), ())


class Launches:
    """What was launched: the arguments of each, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: list[list[object]] = []
        monkeypatch.setattr(replays, "_stream", lambda: 7)

    def launched(self, *arguments: object, fixed: Sequence[int] = ()) -> Launched:
        return Launched(self._again, arguments, frozenset(fixed), True)

    def _again(self, stream: int | None, hooked: bool, arguments: Sequence[object]) -> None:
        assert stream == 7 and not hooked
        self.found.append(list(arguments))


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    return Launches(monkeypatch)


def kept(recorded: Recorded, given: list[Tensor], made: list[Tensor], scratch: Sequence[Tensor] = ()) -> Replays:
    found = Replays()
    found.keep(("key",), recorded, given, [(each, None) for each in made], scratch)
    return found


def test_arguments_are_the_next_calls_own(launches: Launches) -> None:
    q, table, out, halves = torch.zeros(8), torch.zeros(4), torch.zeros(3, 5), torch.zeros(8)
    recorded: Recorded = [
        launches.launched(q, 3, None, table, out, fixed=[3]),
        Derived(torch.neg, (q,), (halves,)),
        launches.launched(halves, 3, 0.5, out),
    ]
    found, other = kept(recorded, [q], [out]), torch.ones(8)
    made = found.run(("key",), [other], NONE)
    assert made is not None and len(made) == 1
    assert made[0].shape == (3, 5) and made[0].is_contiguous() and made[0].data_ptr() != out.data_ptr()
    first, second = launches.found
    assert first == [other.data_ptr(), 3, None, table.data_ptr(), made[0].data_ptr()]
    assert second[1:] == [3, 0.5, made[0].data_ptr()] and second[0] not in (halves.data_ptr(), other.data_ptr())


def test_scratch_is_one_piece_of_memory(launches: Launches, monkeypatch: pytest.MonkeyPatch) -> None:
    q, out = torch.zeros(8), torch.zeros(2)
    scratch = [torch.zeros(n, dtype=dtype) for n, dtype in ((3, torch.float32), (100, torch.float64), (1, torch.int32))]
    found = kept([launches.launched(q, out, *scratch)], [q], [out], scratch)
    pieces: list[Tensor] = []
    replay = found._found["key",]
    assert replay is not None and replay.scratch is not None
    make = replay.scratch.make
    monkeypatch.setattr(type(replay.scratch), "make", property(lambda _: lambda: pieces.append(make()) or pieces[-1]))
    assert found.run(("key",), [q], NONE) is not None
    starts = [int(str(each)) for each in launches.found[0][2:]]
    ends = [start + each.nbytes for start, each in zip(starts, scratch, strict=True)]
    assert all(start % VECTOR_BYTES == pieces[0].data_ptr() % VECTOR_BYTES for start in starts)
    assert starts[0] == pieces[0].data_ptr() and ends[-1] <= starts[0] + pieces[0].nbytes
    assert ends[0] <= starts[1] and ends[1] <= starts[2]


def test_scratch_of_which_more_is_asked_is_not_replayed(launches: Launches) -> None:
    q, sums = torch.zeros(8), torch.zeros(8)
    recorded: Recorded = [launches.launched(q, sums), Derived(torch.neg, (sums,), (torch.zeros(8),))]
    assert kept(recorded, [q], [], [sums]).run(("key",), [q], NONE) is None
    assert not launches.found


@pytest.mark.parametrize("few", [0, 1 << 24])
@pytest.mark.parametrize("fill", [None, 0.0, -torch.inf])
def test_what_is_made_is_dense(few: int, fill: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large: a large tensor is made like one without a size of its own."""
    monkeypatch.setattr(replays, "_FEW_BYTES", few)
    like = torch.ones(2, 3, 4, dtype=torch.float16)
    make = replays._maker(like, fill)
    for found in (make(), make()):
        assert found.shape == like.shape and found.dtype == like.dtype and found.is_contiguous()
        assert found.untyped_storage().nbytes() == like.nbytes
        assert fill is None or bool((found == fill).all())


def test_keys_tell_layouts_apart() -> None:
    q, k = torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 5, 4)

    def key(*alike: Tensor, sink: Tensor | None = None, number: int = 0) -> object:
        return given_to(alike, (sink,), (), number)[1]

    assert key(q, k) == key(q + 1, k + 1)
    others = [
        *(key(k, q), key(q.mT.contiguous().mT, k), key(q.half(), k.half()), key(q, k, number=1)),
        *(key(q, k, sink=torch.zeros(2)), key(q, k, sink=torch.zeros(2, dtype=torch.float64))),
    ]
    assert len({key(q, k), *others}) == 7
