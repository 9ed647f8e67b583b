"""Attention over a sequence that 1 to 4 processes hold, against one process: numbers, and the bytes that travel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, given, seed, settings
from together import run
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

import sparsec
from sparsec.distributed import HeadPlan, Plan
from sparsec.pipeline import Lowered
from sparsec.runtime.compile import module_for
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.request import Request
from sparsec.sema.model import Documents, ResolvedPattern
from sparsec.testing.strategies import patterns

pytestmark = pytest.mark.kernels

EXAMPLES = Path(__file__).parents[3] / "examples"
DRAWN = 50
EXACT = {torch.float64: (1e-9, 1e-9), torch.float32: (1e-4, 2e-5)}
"""Relative and absolute error by dtype."""


def module(pattern: ResolvedPattern, target: str, dtype: torch.dtype) -> SparseAttention:
    request = Request(Lowered(pattern), 16, 16, dtype)
    return module_for(request, target, torch.device("cpu"))


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


def in_parts(attn: SparseAttention, plan: Plan | HeadPlan, whole: list[Tensor], *, overlap: bool) -> list[Tensor]:
    """The same, of this rank's part."""
    q, k, v = (plan.shard(each, 2).clone().requires_grad_() for each in whole[:3])
    out, lse = attn.parallel(plan, overlap=overlap)(q, k, v, return_lse=True)
    leaves = [q, k, v, *attn.parameters()]
    given = [plan.shard(each, 2) for each in whole[3:]]
    found = torch.autograd.grad((out, lse.masked_fill(lse.isinf(), 0)), leaves, given)
    return [out.detach(), lse.detach(), *found]


def planned(attn: SparseAttention, length: int, number: int, shard: Any) -> Plan | HeadPlan:
    if shard != "sequence":
        size = dist.get_world_size()
        mesh = init_device_mesh("cpu", (2, size // 2) if isinstance(shard, tuple) else (size,))
        return sparsec.distributed.plan(attn, mesh, length, shard=shard)
    balance = ("work", "zigzag", None)[number % 3]
    return sparsec.distributed.plan(attn, dist.group.WORLD, length, balance=balance)  # type: ignore[arg-type, return-value]  # one of its values


def check(attn: SparseAttention, plan: Plan | HeadPlan, length: int, sent: Sent, documents: Tensor | None) -> None:
    generator = torch.Generator().manual_seed(length)
    batch = 1 if attn.documents else 2
    shapes = [(attn.heads, 16), (attn.kv_heads, 16), (attn.kv_heads, 16), (attn.heads, 16)]
    whole = [torch.randn((batch, heads, length, dim), generator=generator).to(attn.dtype) for heads, dim in shapes]
    whole.append(torch.randn((batch, attn.heads, length), generator=generator))
    if documents is not None:
        plan = plan.for_documents(documents)
    sent.bytes = 0
    attn.parallel(plan)(*(plan.shard(each, 2) for each in whole[:3]))
    if not isinstance(plan, HeadPlan) or plan.inner is None:
        wide = 2 if attn.dtype == torch.float64 else 1  # the report's numbers have four bytes
        report = plan.report()
        assert sent.bytes == report.sent[plan.held.rank] * batch * wide
        assert sum(report.sent) == sum(report.received)
    overlap = not attn.documents and isinstance(plan, Plan) and length % 2 == 0
    found = in_parts(attn, plan, whole, overlap=overlap)
    expected = as_one(attn, whole, documents)
    for place, one in enumerate(expected):
        ours_of_one = plan.shard(one, 2) if place < 5 else one
        theirs = found[place]
        if place >= 5:  # a parameter's gradient is the sum over the ranks
            dist.all_reduce(theirs)
        rtol, atol = EXACT[one.dtype]
        torch.testing.assert_close(theirs, ours_of_one, rtol=rtol, atol=atol, msg=f"output, LSE, gradients: {place}")
    rtol, atol = EXACT[attn.dtype]
    torch.testing.assert_close(plan.unshard(found[0], 2), expected[0], rtol=rtol, atol=atol)


def check_all(of: list[tuple[ResolvedPattern, int, str, torch.dtype]], shard: Any = "sequence") -> None:
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
            check(attn, planned(attn, length, number, shard), length, sent, documents)
        except sparsec.CallError as error:
            if "counts from the end" not in str(error):
                raise
        except Exception as error:
            raise AssertionError(f"{number}: {pattern}, {length} tokens") from error


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_drawn_patterns(ranks: int) -> None:
    found = drawn(DRAWN)[ranks - 1 :: 1 if ranks == 4 else 4]
    run(check_all, ranks, [(each, 41 + 7 * n % 150, "torch", torch.float64) for n, each in enumerate(found)])


@pytest.mark.parametrize(("shard", "ranks"), [("heads", 4), (("sequence", "heads"), 4)])
def test_heads(shard: Any, ranks: int) -> None:
    bodies = (
        "heads 8 kv 4  block 16  causal  learned_sink  attend sink(4) | window(40)",
        "heads 4 kv 2  block 16  causal  documents  alibi  attend window(2b) | stride(4b, phase = -h)",
        "heads 4 kv 4  documents restart  causal  learned_sink  attend full",
        "heads 8 kv 2  causal  where h < 3 attend full  where h >= 3 attend window(30)",
    )
    found = [sparsec.parse(f"pattern p {{ {body} }}").pattern("p").lowered(None, None).pattern for body in bodies]
    run(check_all, ranks, [(each, 141 + n, "torch", torch.float64) for n, each in enumerate(found)], shard)


def test_examples() -> None:
    run(check_all, 3, [(each, 389 + n, "torch", torch.float64) for n, each in enumerate(examples())])


def test_cpu_kernels() -> None:
    texts = (
        "pattern p { heads 4 kv 2  block 16  causal  learned_sink  attend sink(4) | window(40) }",
        "pattern p { heads 4 kv 4  block 16  causal  documents  alibi  attend window(2b) | stride(4b, phase = -h) }",
        "pattern p { heads 4 kv 2  documents restart  causal  attend full }",
    )
    found = [sparsec.parse(text).pattern("p").lowered(None, None).pattern for text in texts]
    run(check_all, 2, [(each, 516 + n, "cpu", torch.float32) for n, each in enumerate(found)])


def with_inputs() -> None:
    """Every kind that is served: what speaks of queries or keys is given for a rank's tokens."""
    length, heads, groups = 120, 4, 2
    inputs = "input n : length  input marked : tokens  input far : columns  input near : slashes  input picks : rows"
    body = f"{inputs}  input names : labels  input w : weights  key_bias w  causal"
    terms = "window(n) | marked | far | near | picks | names"
    program = sparsec.parse(f"pattern p {{ heads {heads} kv {groups}  {body}  attend {terms} }}")
    attn = module(program.pattern("p").lowered(None, None).pattern, "torch", torch.float64)
    generator = torch.Generator().manual_seed(0)

    def numbers(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    whole: dict[str, Any] = {
        "n": numbers(9, 1),
        "marked": numbers(30, 1, groups, length) == 0,
        "far": numbers(length, 1, groups, 3),
        "near": numbers(length, 1, heads, 2),
        "picks": numbers(length, 1, groups, length, 2),
        "names": (numbers(12, 1, 1, length) - 8, numbers(12, 1, 1, length) - 8),
        "w": torch.randn((1, groups, length), generator=generator),
    }
    plan = sparsec.distributed.plan(attn, dist.group.WORLD, length)
    mine = dict(whole)
    for name, axis in (("marked", -1), ("picks", 2), ("w", -1)):
        mine[name] = plan.shard(whole[name], axis)
    mine["names"] = tuple(plan.shard(each, -1) for each in whole["names"])
    mine["w"].requires_grad_(), whole["w"].requires_grad_()
    q, k, v = (torch.randn((1, h, length, 16), generator=generator).double() for h in (heads, groups, groups))
    one = attn(q, k, v, inputs=whole)
    part = attn.parallel(plan)(*(plan.shard(each, 2) for each in (q, k, v)), inputs=mine)
    torch.testing.assert_close(part, plan.shard(one, 2), rtol=1e-9, atol=1e-9)
    (of_weights,) = torch.autograd.grad(one.sum(), whole["w"])
    (ours,) = torch.autograd.grad(part.sum(), mine["w"])
    torch.testing.assert_close(ours, plan.shard(of_weights, -1), rtol=1e-4, atol=1e-4)
    with pytest.raises(sparsec.CallError, match=r"expected inputs \['far', .*\], got \[\]"):
        attn.parallel(plan)(*(plan.shard(each, 2) for each in (q, k, v)))
    tree = sparsec.compile("pattern p { causal  input t : tree  attend t }", heads=1, kv_heads=1, head_dim=16)
    with pytest.raises(sparsec.CallError, match=r"expected inputs of kinds length, .*, got t of kind tree"):
        tree.parallel(sparsec.distributed.plan(tree, dist.group.WORLD, length))


def test_inputs() -> None:
    run(with_inputs, 2)
