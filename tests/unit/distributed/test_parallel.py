"""Attention over a sequence that 1 to 4 processes hold, against one process: numbers, and the bytes that travel.

One set of processes does all of it, for most of what a set takes is starting it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, given, seed, settings
from inputs_on_ranks import examples_with_inputs, module, resolved, with_inputs, with_tiles
from together import group_of, run
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

import sparsec
from sparsec.distributed import HeadPlan, Plan
from sparsec.integrations.megatron import SparseCoreAttention, core_attention
from sparsec.runtime.module import SparseAttention
from sparsec.sema.model import Documents, ResolvedPattern
from sparsec.testing.strategies import patterns

pytestmark = pytest.mark.kernels

EXAMPLES = Path(__file__).parents[3] / "examples"
DRAWN = 50
EXACT = {torch.float64: (1e-9, 1e-9), torch.float32: (1e-4, 2e-5)}
"""Relative and absolute error by dtype."""


def drawn(count: int) -> list[ResolvedPattern]:
    found: list[ResolvedPattern] = []

    @seed(18)
    @settings(max_examples=4 * count, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(patterns(scored=True))
    def draw(pattern: ResolvedPattern) -> None:
        if len(found) < count:
            found.append(pattern)

    draw()
    assert len(found) == count
    return found


def examples() -> list[ResolvedPattern]:
    found = []
    for path in sorted(EXAMPLES.glob("*.sparse")):
        program = sparsec.load(path)
        for name in program.patterns:
            pattern = program.pattern(name)
            try:
                found.append(pattern.lowered(8, 4).pattern)
            except sparsec.CallError:  # it has head counts of its own
                found.append(pattern.lowered(None, None).pattern)
    assert len(found) >= 20
    return found


class Sent:
    """Counts the bytes that an all-to-all takes to other ranks."""

    def __init__(self) -> None:
        self.bytes, self.calls = 0, 0
        self._own = dist.all_to_all_single

    def __call__(
        self, out: Tensor, given: Tensor, out_splits: Any, in_splits: list[int], group: Any, async_op: bool = False
    ) -> Any:
        row = given[:1].numel() * given.element_size()
        self.calls += 1
        self.bytes += sum(count for rank, count in enumerate(in_splits) if rank != dist.get_rank()) * row
        return self._own(out, given, out_splits, in_splits, group, async_op)


def as_one(attn: SparseAttention, whole: list[Tensor], documents: Tensor | None) -> list[Tensor]:
    """Output, LSE and gradients of the whole sequence; `whole`: q, k, v and the gradients of output and LSE."""
    q, k, v = (each.clone().requires_grad_() for each in whole[:3])
    out, lse = attn(q, k, v, return_lse=True, cu_seqlens=documents)
    leaves = [q, k, v, *attn.parameters()]
    return [out.detach(), lse.detach(), *torch.autograd.grad((out, lse.masked_fill(lse.isinf(), 0)), leaves, whole[3:])]


def of_one(
    attn: SparseAttention, whole: list[Tensor], documents: Tensor | None, group: dist.ProcessGroup
) -> list[Tensor]:
    """`as_one`, which one rank computes for all."""
    found: list[Any] = [as_one(attn, whole, documents) if dist.get_rank(group) == 0 else None]
    dist.broadcast_object_list(found, dist.get_global_rank(group, 0), group)
    return found[0]  # type: ignore[no-any-return]  # it is what the first rank gave


def in_parts(
    attn: SparseAttention, plan: Plan | HeadPlan, whole: list[Tensor], sent: Sent, *, overlap: bool
) -> list[Tensor]:
    """The same, of this rank's part; `sent` then counts what the forward pass has sent."""
    q, k, v = (plan.shard(each, 2).clone().requires_grad_() for each in whole[:3])
    sent.bytes = 0
    out, lse = attn.parallel(plan, overlap=overlap)(q, k, v, return_lse=True)
    forward = sent.bytes
    leaves = [q, k, v, *attn.parameters()]
    given = [plan.shard(each, 2) for each in whole[3:]]
    found = torch.autograd.grad((out, lse.masked_fill(lse.isinf(), 0)), leaves, given)
    sent.bytes = forward
    return [out.detach(), lse.detach(), *found]


def planned(attn: SparseAttention, mesh: Any, length: int, number: int, shard: Any) -> Plan | HeadPlan:
    if shard != "sequence":
        return sparsec.distributed.plan(attn, mesh, length, shard=shard)
    balance: Any = ("work", "zigzag", None)[number % 3]
    return sparsec.distributed.plan(attn, mesh, length, balance=balance)


def check(attn: SparseAttention, plan: Plan | HeadPlan, length: int, sent: Sent, documents: Tensor | None) -> None:
    generator = torch.Generator().manual_seed(length)
    batch = 1 if attn.documents else 2
    shapes = [(attn.heads, 16), (attn.kv_heads, 16), (attn.kv_heads, 16), (attn.heads, 16)]
    whole = [torch.randn((batch, heads, length, dim), generator=generator).to(attn.dtype) for heads, dim in shapes]
    whole.append(torch.randn((batch, attn.heads, length), generator=generator))
    if documents is not None:
        plan = plan.for_documents(documents)
    overlap = not attn.documents and isinstance(plan, Plan) and length % 2 == 0
    found = in_parts(attn, plan, whole, sent, overlap=overlap)
    if isinstance(plan, HeadPlan):  # which predicts a call without an LSE
        sent.bytes = 0
        attn.parallel(plan)(*(plan.shard(each, 2) for each in whole[:3]))
    if not isinstance(plan, HeadPlan) or plan.inner is None:
        wide = 2 if attn.dtype == torch.float64 else 1  # the report's numbers have four bytes
        report = plan.report()
        assert sent.bytes == report.sent[plan.held.rank] * batch * wide
        assert sum(report.sent) == sum(report.received)
    expected = of_one(attn, whole, documents, plan.held.group)
    for place, one in enumerate(expected):
        ours_of_one = plan.shard(one, 2) if place < 5 else one
        theirs = found[place]
        if place >= 5:  # a parameter's gradient is the sum over the ranks
            dist.all_reduce(theirs, group=plan.held.group)
        rtol, atol = EXACT[one.dtype]
        torch.testing.assert_close(theirs, ours_of_one, rtol=rtol, atol=atol, msg=f"output, LSE, gradients: {place}")
    rtol, atol = EXACT[attn.dtype]
    torch.testing.assert_close(plan.unshard(found[0], 2), expected[0], rtol=rtol, atol=atol)


Cases = list[tuple[ResolvedPattern, int, str, torch.dtype]]


def check_all(mesh: Any, of: Cases, shard: Any = "sequence") -> None:
    sent = Sent()
    dist.all_to_all_single = sent  # type: ignore[assignment]  # it counts
    for number, (pattern, length, target, dtype) in enumerate(of):
        attn = module(pattern, target, dtype)
        documents = None
        if pattern.documents is not Documents.NONE:
            documents = torch.tensor([0, length // 5, length // 5, length // 2 + 1, length], dtype=torch.int32)
        if attn.sink is not None:
            torch.nn.init.normal_(attn.sink, generator=torch.Generator().manual_seed(0))
        try:
            check(attn, planned(attn, mesh, length, number, shard), length, sent, documents)
        except sparsec.CallError as error:
            if "counts from the end" not in str(error):
                raise
        except Exception as error:
            raise AssertionError(f"{number}: {pattern}, {length} tokens") from error
    dist.all_to_all_single = sent._own


BY_HEADS = (
    "heads 8 kv 4  block 16  causal  learned_sink  attend sink(4) | window(40)",
    "heads 4 kv 2  block 16  causal  documents  alibi  attend window(2b) | stride(4b, phase = -h)",
    "heads 4 kv 4  documents restart  causal  learned_sink  attend full",
    "heads 8 kv 2  causal  where h < 3 attend full  where h >= 3 attend window(30)",
)
ON_A_CPU = (
    "heads 4 kv 2  block 16  causal  learned_sink  attend sink(4) | window(40)",
    "heads 4 kv 4  block 16  causal  documents  alibi  attend window(2b) | stride(4b, phase = -h)",
    "heads 4 kv 2  documents restart  causal  attend full",
)


def ranks_of_megatron(group: Any) -> None:
    """Context parallel ranks have chunks from either end, and tensor parallel ones some heads."""
    size = dist.get_world_size(group)
    own = {"num_layers": 1, "num_attention_heads": 4, "num_query_groups": 2, "kv_channels": 16}
    own |= {"attention_dropout": 0.0, "params_dtype": torch.float64, "softmax_type": "vanilla", "window_size": None}
    build = core_attention("pattern p { causal  attend sink(4) | window(70) }", target="torch")

    def layer(tensor: int, context: int) -> SparseCoreAttention:
        of = SimpleNamespace(**own, tensor_model_parallel_size=tensor, context_parallel_size=context)
        return build(config=of, layer_number=1, pg_collection=SimpleNamespace(tp=group, cp=group))

    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn((256, 2, heads, 16), generator=generator).double() for heads in (4, 2, 2))
    expected, rank, chunk = layer(1, 1)(q, k, v, None), dist.get_rank(group), 256 // (2 * size)
    places = [n * chunk + i for n in (rank, 2 * size - 1 - rank) for i in range(chunk)]
    later = torch.ones(256, 256, dtype=torch.bool).triu(1)[places]
    for mask in (None, later[None, None]):
        torch.testing.assert_close(layer(1, size)(q[places], k[places], v[places], mask), expected[places])
    heads, groups = slice(rank * 4 // size, (rank + 1) * 4 // size), slice(rank * 2 // size, (rank + 1) * 2 // size)
    part = layer(size, 1)(q[:, :, heads], k[:, :, groups], v[:, :, groups], None)
    torch.testing.assert_close(part, expected[..., heads.start * 16 : heads.stop * 16])
    with pytest.raises(sparsec.CallError, match="expected chunks of whole blocks on each rank, got 99 tokens"):
        layer(1, size)(q[:99], k[:99], v[:99], None)


def documents_of_megatron(group: Any) -> None:
    """Context parallel ranks have chunks from either end of each document."""
    size, rank = dist.get_world_size(group), dist.get_rank(group)
    own = {"num_layers": 1, "num_attention_heads": 4, "num_query_groups": 2, "kv_channels": 16}
    own |= {"attention_dropout": 0.0, "params_dtype": torch.float64, "tensor_model_parallel_size": 1}
    build = core_attention("pattern p { causal  documents  attend sink(4) | window(30) }", target="torch")
    one, part = (
        build(config=SimpleNamespace(**own, context_parallel_size=ranks), layer_number=1, pg_collection=collection)
        for ranks, collection in ((1, None), (size, SimpleNamespace(cp=group)))
    )
    generator = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn((200, heads, 16), generator=generator).double() for heads in (4, 2, 2))
    for ends in ([0, 40, 40, 168, 200], [0, 200], [0, 40, 200]):
        cu = torch.tensor(ends, dtype=torch.int32)
        packed = SimpleNamespace(qkv_format="thd", cu_seqlens_q=cu)
        places = []
        for start, stop in pairwise(ends):
            chunks = torch.arange(start, stop).chunk(2 * size) if start < stop else []
            places += [chunks[n] for n in (rank, 2 * size - 1 - rank) if chunks]
        mine = torch.cat(places)
        found = part(q[mine], k[mine], v[mine], None, packed_seq_params=packed)
        expected = one(q, k, v, None, packed_seq_params=packed)[mine]
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    wrong = SimpleNamespace(qkv_format="thd", cu_seqlens_q=torch.tensor([0, 41, 200]))
    with pytest.raises(sparsec.CallError, match="expected documents of 200 tokens together, of which each has a multi"):
        part(q[mine], k[mine], v[mine], None, packed_seq_params=wrong)


def all_of_it(of_drawn: dict[int, Cases], of_examples: Cases, of_heads: Cases, on_a_cpu: Cases) -> None:
    for ranks, cases in of_drawn.items():
        group = group_of(ranks)
        if group is None:
            continue
        check_all(group, cases)
        if ranks == 3:
            check_all(group, of_examples)
            examples_with_inputs(group)
        if ranks == 2:
            check_all(group, on_a_cpu)
            with_inputs(group)
            with_tiles(group)
            ranks_of_megatron(group)
            documents_of_megatron(group)
    dist.barrier()
    for mesh, shard in (
        (init_device_mesh("cpu", (4,)), "heads"),
        (init_device_mesh("cpu", (2, 2)), ("sequence", "heads")),
    ):
        check_all(mesh, of_heads, shard)
        with_inputs(mesh, shard)
    examples_with_inputs(mesh, shard)


def test_parts_of_a_sequence() -> None:
    """Drawn patterns on 1 to 4 ranks, examples, what CPU kernels do, inputs, and heads dealt out."""
    found = drawn(DRAWN)
    of_ranks = {ranks: found[ranks - 1 :: 1 if ranks == 4 else 4] for ranks in (4, 3, 2, 1)}

    def cases(patterns: Iterable[ResolvedPattern], length: int, target: str = "torch") -> Cases:
        dtype = torch.float64 if target == "torch" else torch.float32
        return [(each, length + n, target, dtype) for n, each in enumerate(patterns)]

    run(
        all_of_it,
        4,
        {
            ranks: [(each, 41 + 7 * n % 150, "torch", torch.float64) for n, each in enumerate(of)]
            for ranks, of in of_ranks.items()
        },
        cases(examples(), 389),
        cases(map(resolved, BY_HEADS), 141),
        cases(map(resolved, ON_A_CPU), 516, "cpu"),
        timeout=900.0,
    )
