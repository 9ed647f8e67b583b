"""What a real card would punish and the interpreter does not: see `card`. Kernels are not run here, only launched."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from card import Machine, OnCard
from torch import Tensor
from triton.runtime.errors import OutOfResources

import sparsec
from sparsec.plan.target import launch_shape
from sparsec.runtime.module import SparseAttention

SOURCES = {
    "s2": "pattern p { block 64 causal learned_sink attend sink(64) | window(4b) | stride(4b, phase = -g) }",
    "random": "pattern p { block 64 causal attend window(2b) | random(3, seed = 5) }",
    "duo": "pattern p { causal where g in [0] attend full otherwise attend sink(64) | window(256) }",
}
DOCUMENTS = "pattern p { causal documents attend full }"
HEADS, KV_HEADS = 4, 2
MAX_LEN = 4000


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine().running() as made:
        yield made


def compiled(source: str, index: int = 0, head_dim: int = 64, dtype: torch.dtype = torch.bfloat16) -> SparseAttention:
    return sparsec.compile(
        source, heads=HEADS, kv_heads=KV_HEADS, head_dim=head_dim, dtype=dtype, device=f"cuda:{index}", target="triton"
    )


class Calls:
    """Calls of one module on one device, of every kind that it has."""

    def __init__(self, machine: Machine, source: str, index: int = 0) -> None:
        self.machine, self.index = machine, index
        self.attn = compiled(source)
        if self.attn.sink is not None:
            del self.attn.sink  # a parameter on the CPU
            self.attn.sink = machine.put(torch.zeros(HEADS), index)
        self.documents = self.attn.documents
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a cache of random draws keeps every key
            if not self.documents:
                self.cache = self.attn.new_cache(2, MAX_LEN, device=f"cuda:{index}")

    def tensors(self, n: int, batch: int = 2) -> list[OnCard]:
        made = (torch.zeros(batch, heads, n, 64, dtype=torch.bfloat16) for heads in (HEADS, KV_HEADS, KV_HEADS))
        return [self.machine.put(tensor, self.index) for tensor in made]

    def bounds(self, n: int) -> OnCard:
        return self.machine.put(torch.tensor([0, n // 2, n], dtype=torch.int32), self.index)

    def passes(self, n: int) -> None:
        """Forward, then forward and backward."""
        given: dict[str, Any] = {"cu_seqlens": self.bounds(n)} if self.documents else {}
        tensors = self.tensors(n, 1 if self.documents else 2)
        with torch.no_grad():
            self.attn(*tensors, **given)
        for tensor in tensors:
            tensor.requires_grad_()
        out, lse = self.attn(*tensors, return_lse=True, **given)
        zeros = self.machine.put(torch.zeros(out.shape, dtype=out.dtype), self.index)
        ones = self.machine.put(torch.ones(lse.shape), self.index)
        torch.autograd.grad((out, lse), tensors, (zeros, ones))

    @torch.no_grad()
    def steps(self, *new: int, lengths: object = None) -> None:
        for n in new:
            self.attn(*self.tensors(n), cache=self.cache, lengths=lengths)

    def all(self, n: int) -> None:
        self.passes(n)
        if not self.documents:
            self.steps(20, 1, 3, n)

    def some(self, *new: int) -> None:
        """Steps in which the device alone knows how many tokens each sequence has."""
        self.steps(*new, lengths=self.machine.put(torch.tensor([1, 3]), self.index))


@pytest.fixture(params=[*SOURCES.values(), DOCUMENTS], ids=[*SOURCES, "documents"])
def source(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are registered for the life of a process: here each test has a table of its own."""
    monkeypatch.setattr("sparsec.runtime.kernel._KERNELS", {})


def test_launches_go_to_the_device_of_the_tensors(machine: Machine, source: str) -> None:
    calls = Calls(machine, source, index=1)
    calls.all(300)
    assert {launch.device for launch in machine.launches} == {1} and machine.device == 0
    names = {launch.name for launch in machine.launches}
    assert names >= {"forward_0", "row_sums", "grad_queries_0", "grad_keys_0"}
    assert calls.documents or names >= {"attend_0", "decode_0", "merge", "store"}


def test_only_a_first_call_copies_from_the_host_or_waits(machine: Machine, source: str) -> None:
    calls = Calls(machine, source)
    calls.all(300)
    machine.forget()
    for n in (300, 77, 1000):
        calls.all(n)
    assert (machine.copies, machine.waits) == ([], []) and machine.launches


def test_lengths_of_the_device_are_neither_copied_nor_waited_for(machine: Machine) -> None:
    calls = Calls(machine, SOURCES["random"])
    calls.steps(40, 3)
    machine.forget()
    calls.some(3, 20)
    with machine.captured():
        calls.some(3, 20)
    calls.some(3, 20)
    assert (machine.copies, machine.waits) == ([], []) and machine.launches


def test_lengths_of_the_host_are_copied_without_a_wait(machine: Machine) -> None:
    calls = Calls(machine, SOURCES["duo"])
    calls.steps(40, 3)
    machine.forget()
    for lengths in ([2, 0], torch.tensor([1, 3])):
        calls.steps(3, lengths=lengths)
    assert machine.copies == ["pinned [2] to cuda:0"] * 2 and machine.waits == []
    assert calls.cache.lengths == (46, 46) and machine.waits == []


def test_lengths_of_the_device_stay_there(machine: Machine) -> None:
    calls = Calls(machine, SOURCES["duo"])
    calls.steps(40, 3)
    machine.forget()
    calls.steps(3, lengths=machine.put(torch.tensor([-2, 9, 2])[:2]))  # the nearest that there are
    decode = next(launch for launch in machine.launches if launch.name == "decode_0")
    assert decode.given["counts"].inside.tolist() == [0, 3] and decode.given["counts"].dtype == torch.int32
    calls.steps(3, lengths=[1, 1])
    assert (machine.copies, machine.waits) == (["pinned [2] to cuda:0"], [])
    assert calls.cache.state.tolist() == [[47, 47], [43, 43], [0, 0]]  # the most that it may be, for nobody has asked
    assert calls.cache.lengths == (44, 47) and len(machine.waits) == 1
    calls.cache.truncate([44, 46])
    assert calls.cache.lengths == (44, 46) and calls.cache.state.tolist() == [[44, 46], [44, 47], [0, 0]]
    with pytest.raises(sparsec.CallError, match=r"expected lengths \[2\] on the CPU or cuda:0, got \[2\] on cuda:1"):
        calls.steps(3, lengths=machine.put(torch.tensor([1, 1]), 1))


def test_rows_come_and_go_without_a_wait(machine: Machine) -> None:
    calls = Calls(machine, SOURCES["duo"])
    calls.steps(40, 3, 1)
    machine.forget()
    with machine.captured(graph=1):  # which reads then what rows are in use
        calls.steps(3, 1)
    calls.cache.release(0)
    calls.steps(3, 1)
    calls.steps(3, lengths=machine.put(torch.tensor([2, 2])))
    stores = [launch for launch in machine.launches if launch.name == "store"]
    counts = [each.given["counts"].inside.tolist() for each in stores[2:]]
    assert counts == [[0, 3], [0, 1], [0, 2]] and calls.cache.live.inside.tolist() == [0, 1]
    assert (machine.copies, machine.waits) == ([], [])
    assert calls.cache.lengths == (0, 54)  # the machine computes what a capture would leave to replays
    calls.cache.admit(0)
    machine.forget()
    calls.steps(3, 1)
    assert (machine.copies, machine.waits) == ([], []) and calls.cache.lengths == (4, 58)
    gc.collect()
    assert [name for name in machine.lost() if name.partition(": ")[2] in OURS] == []


def test_a_capture_after_a_first_call(machine: Machine, source: str) -> None:
    calls = Calls(machine, source)
    calls.all(300)
    machine.forget()
    before = None if calls.documents else calls.cache.state.clone()
    with machine.captured(graph=1):
        calls.all(300)
    assert {launch.stream for launch in machine.launches} == {101}
    assert before is None or torch.equal(calls.cache.state, before)  # nothing has been done yet
    for n in (300, 77):  # which neither read what the graph has, nor drop what it needs
        calls.all(n)
    gc.collect()
    assert [name for name in machine.lost() if name.partition(": ")[2] in OURS] == []


OURS = {"table", "spans", "members", "head_splits", "counts", "draws_0", "document_tiles", "places", "lengths"}
"""Arguments that no caller gives."""


INPUTS = """pattern p {
    block 16  causal  input marks : tokens  input pages : rows(blocks)
    attend sink(4) | window(24) | marks | pages
}"""


@torch.no_grad()
def test_inputs_over_a_cache_are_neither_copied_nor_waited_for(machine: Machine) -> None:
    calls = Calls(machine, INPUTS)

    def steps() -> None:
        for n in (20, 1):
            marks, pages = torch.ones(2, n, dtype=torch.bool), torch.zeros(2, KV_HEADS, n, 3, dtype=torch.int32)
            given = {"marks": machine.put(marks), "pages": machine.put(pages)}
            calls.attn(*calls.tensors(n), cache=calls.cache, inputs=given)

    steps()
    machine.forget()
    steps()
    with machine.captured():
        steps()
    assert (machine.copies, machine.waits) == ([], [])
    kernels = ("list_attend_0", "attend_0", "gather_attend_0", "list_decode_0", "decode_0", "gather_decode_0", "merge")
    assert {launch.name for launch in machine.launches} >= set(kernels)


def test_a_capture_before_any_call(machine: Machine, source: str) -> None:
    calls = Calls(machine, source)
    with machine.captured():
        with pytest.raises(sparsec.CallError, match="expected a first call of this kind on cuda:0 before one"):
            calls.passes(300)
        if not calls.documents:
            with pytest.raises(sparsec.CallError, match="expected a first call of this kind on cuda:0"):
                calls.steps(1)
    calls.all(300)


def test_a_capture_takes_no_lengths_of_the_host(machine: Machine) -> None:
    calls = Calls(machine, SOURCES["duo"])
    calls.steps(40, 3)
    expected = "expected lengths as a tensor on cuda:0 in a CUDA graph capture, got them on the CPU"
    with machine.captured(), pytest.raises(sparsec.CallError, match=expected):
        calls.steps(3, lengths=[1, 2])
    assert calls.cache.lengths == (43, 43)


def test_streams_share_nothing_that_one_of_them_makes(machine: Machine, source: str) -> None:
    calls = Calls(machine, source)
    made = calls.cache if not calls.documents else None
    if made is not None:  # the user's to wait for, and that has been done
        for tensor in (made.keys, made.values, made.lengths_tensor, *made.lists):
            tensor.stream = None
    calls.passes(300)
    with machine.on_stream(7):
        calls.passes(300)
    if made is not None:
        calls.steps(20, 1, 3)
        made.lengths_tensor.stream = None
        with machine.on_stream(8):
            calls.steps(20, 1, 3)
    assert {launch.stream for launch in machine.launches} >= {0, 7}


def at(tensor: Tensor, elements: int, machine: Machine) -> OnCard:
    """A copy that begins so many elements past a multiple of 16 bytes."""
    room = torch.zeros(tensor.numel() + elements, dtype=tensor.dtype)
    assert room.data_ptr() % 16 == 0
    return machine.put(room[elements:].view(tensor.shape).copy_(tensor))


def keys(machine: Machine) -> set[str]:
    return {launch.key for launch in machine.launches}


def test_a_new_length_batch_or_offset_compiles_nothing(machine: Machine, source: str) -> None:
    calls = Calls(machine, source)
    calls.all(300)
    known = keys(machine)
    machine.forget()
    for n in (1, 16, 77, 1000):
        calls.passes(n)
        if not calls.documents:
            calls.steps(n + 16, 1)
            with torch.no_grad():
                q, k, v = calls.tensors(n, batch=3)
                calls.attn(q[:, :, n // 2 :], k, v, q_offset=16)
    assert keys(machine) <= known


def test_tensors_at_odd_addresses_are_read_one_by_one(machine: Machine) -> None:
    calls = Calls(machine, SOURCES["duo"])
    even = calls.tensors(300)
    calls.attn(*even)
    vectors = [launch.given["VECTOR"] for launch in machine.launches]
    described = [launch.given["TMA"] for launch in machine.launches]
    assert vectors == [8, 8] and described == [True, True]
    for n in range(3):
        machine.forget()
        calls.attn(*(at(t.inside, 1, machine) if n == m else t for m, t in enumerate(even)))
        assert [launch.given["VECTOR"] for launch in machine.launches] == [1, 1]
        assert not any(launch.given["TMA"] for launch in machine.launches)


def test_small_tensors_at_odd_addresses_compile_nothing(machine: Machine) -> None:
    calls = Calls(machine, SOURCES["s2"])
    calls.passes(300)
    calls.steps(20, 20, 3, 1)  # the first is a forward pass
    calls.steps(3, lengths=machine.put(torch.tensor([1, 2], dtype=torch.int32)))
    known = keys(machine)
    machine.forget()
    calls.attn.sink = at(torch.zeros(HEADS), 1, machine)
    calls.passes(300)
    q, k, v = (tensor.requires_grad_() for tensor in calls.tensors(300))
    out, lse = calls.attn(q, k, v, return_lse=True)
    torch.autograd.grad((out, lse), (q, k, v), (torch.zeros_like(out), at(torch.zeros(lse.shape), 3, machine)))
    calls.steps(20, 3, 1)
    calls.steps(3, lengths=machine.put(torch.tensor([0, 1, 2], dtype=torch.int32)[1:]))
    assert keys(machine) <= known and machine.launches


def test_one_column_of_a_wider_tensor_fits_a_descriptor(machine: Machine) -> None:
    attn = compiled("pattern p { causal attend full }", head_dim=1)
    heads = (HEADS, KV_HEADS, KV_HEADS, HEADS)
    q, k, v, g = (machine.put(torch.zeros(1, n, 40, 1, 8, dtype=torch.bfloat16)[..., 0]) for n in heads)
    assert k.stride() == (640, 320, 8, 8)
    out = attn(*(tensor.requires_grad_() for tensor in (q, k, v)))
    torch.autograd.grad(out, (q, k, v), g)
    described = [launch.name for launch in machine.launches if launch.given.get("TMA")]
    assert described == ["grad_queries_0", "grad_keys_0"]


def test_two_devices() -> None:
    with Machine(capabilities=((9, 0), (8, 0), (7, 5))).running() as machine:
        first = Calls(machine, SOURCES["duo"])
        first.all(300)
        machine.forget()
        tiles = [c.program for c in first.attn.plan.classes]
        for index, target in ((1, "cuda:80"), (0, "cuda:90")):
            machine.forget()
            first.attn(*Calls(machine, SOURCES["duo"], index).tensors(300))
            for launch, program in zip(machine.launches, tiles, strict=True):
                shape = launch_shape(target, 64, "bfloat16", program.query_tile, program.key_tile)
                got = launch.options["num_warps"], launch.options["num_stages"]
                assert (launch.device, *got) == (index, shape.warps, shape.stages)
                assert launch.given["TMA"] == (target == "cuda:90")
        other = Calls(machine, SOURCES["duo"], 2)
        with pytest.raises(sparsec.CallError, match=r"of compute capability 8\.0 or later, got cuda:2, a cuda:75"):
            other.passes(300)
        machine.refuse = OutOfResources(170_000, 101_376, "shared memory")
        with pytest.raises(sparsec.CallError, match="expected a device like the one that the module was compiled for"):
            first.passes(300)
