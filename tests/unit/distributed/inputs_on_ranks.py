"""What ranks give of a pattern's inputs, against one process with all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.distributed import HeadPlan, Plan
from sparsec.pipeline import Lowered
from sparsec.runtime.compile import module_for
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.request import Request
from sparsec.sema.model import InputDecl, InputKind, ResolvedPattern
from sparsec.sema.shapes import tile_of
from sparsec.testing.inputs import drawn_inputs

EXAMPLES_WITH_INPUTS = Path(__file__).parents[3] / "examples" / "inputs"


def module(pattern: ResolvedPattern, target: str, dtype: torch.dtype) -> SparseAttention:
    request = Request(Lowered(pattern), 16, 16, dtype)
    return module_for(request, target, torch.device("cpu"))


def resolved(body: str) -> ResolvedPattern:
    return sparsec.parse(f"pattern p {{ {body} }}").pattern("p").lowered(None, None).pattern


def with_inputs(group: Any, shard: Any = "sequence") -> None:
    """What speaks of queries or keys is given for a rank's tokens."""
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
    plan = sparsec.distributed.plan(attn, group, length, shard=shard)
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


TILED = "input tiles : blocks(12, 10)  input drafts : tree  causal  attend (tiles | window(9)) & drafts"


def with_tiles(group: Any) -> None:
    """Rows of tiles that two ranks touch are both ranks'; drafts are the same on both, of which a rank's keys may have
    some."""
    length, heads, groups, generator = 117, 4, 2, torch.Generator().manual_seed(1)
    attn = module(resolved(f"heads {heads} kv {groups}  block 16  {TILED}"), "torch", torch.float64)
    plans = [sparsec.distributed.plan(attn, group, length, balance=of) for of in ("work", "zigzag")]
    q, k, v = (torch.randn((2, h, length, 16), generator=generator).double() for h in (heads, groups, groups))
    marked = torch.rand((2, groups, 10, 12), generator=generator) < 0.3
    counts = torch.randint(4, (1, heads, 10), generator=generator)
    lists = counts, torch.randint(12, (1, heads, 10, 3), generator=generator)
    for drafts in (1, 30, length):
        parents = (torch.rand((2, drafts), generator=generator) * torch.arange(drafts)).long() - 1
        for plan, tiles in zip(plans, (marked, lists), strict=True):
            whole: dict[str, Any] = {"tiles": tiles, "drafts": parents}
            pair = tuple(plan.shard(each, 2, tile=12) for each in (tiles if isinstance(tiles, tuple) else (tiles,)))
            mine = {"tiles": pair if len(pair) == 2 else pair[0], "drafts": parents}
            part = attn.parallel(plan)(*(plan.shard(each, 2) for each in (q, k, v)), inputs=mine)
            torch.testing.assert_close(part, plan.shard(attn(q, k, v, inputs=whole), 2), rtol=1e-9, atol=1e-9)
    with pytest.raises(sparsec.CallError, match=r"expected input 'tiles' with the \d+ rows of tiles that this rank's"):
        attn.parallel(plan)(*(plan.shard(each, 2) for each in (q, k, v)), inputs=whole)
    with pytest.raises(sparsec.CallError, match="expected 10 tiles of 12 tokens along dimension 2, got 12"):
        plan.shard(marked.mT, 2, tile=12)
    body = "heads 1 kv 1  documents restart  input tiles : blocks(12, 10)  causal  attend tiles"
    attn = module(resolved(body), "torch", torch.float64)
    plan = sparsec.distributed.plan(attn, group, length).for_documents([0, 50, length])
    with pytest.raises(sparsec.CallError, match="expected no input of kind blocks where documents restart, got tiles"):
        attn.parallel(plan)


def of_rank(plan: Plan | HeadPlan, decl: InputDecl, given: Any) -> Any:
    """This rank's part of an input's tensors."""
    match decl.kind:
        case InputKind.TOKENS | InputKind.WEIGHTS:
            return plan.shard(given, -1)
        case InputKind.LABELS:
            return tuple(plan.shard(each, -1) for each in given)
        case InputKind.ROWS:
            return plan.shard(given, 2)
        case InputKind.BLOCKS:
            tile = tile_of(decl)[0]
            pair = given if isinstance(given, tuple) else (given,)
            rows = -(-plan.held.length // tile)
            own = tuple(plan.shard(each[:, :, :rows], 2, tile=tile) for each in pair)
            return own if len(own) == 2 else own[0]
        case _:
            return given


def examples_with_inputs(mesh: Any, shard: Any = "sequence") -> None:
    """Every pattern of `examples/inputs`, by inputs of drawn contents."""
    length, kinds = 201, set[InputKind]()
    for path in sorted(EXAMPLES_WITH_INPUTS.glob("*.sparse")):
        program = sparsec.load(path)
        for name in program.patterns:
            pattern = program.pattern(name).lowered(8, 4).pattern
            attn = module(pattern, "torch", torch.float64)
            plan = sparsec.distributed.plan(attn, mesh, length, shard=shard)
            generator = torch.Generator().manual_seed(3)
            heads = pattern.heads, pattern.kv_heads, pattern.kv_heads
            q, k, v = (torch.randn((2, each, length, 16), generator=generator).double() for each in heads)
            whole = drawn_inputs(pattern, batch=2, n_q=length, n_k=length, q_offset=0, seed=5)
            mine = {decl.name: of_rank(plan, decl, whole[decl.name]) for decl in attn.inputs}
            part = attn.parallel(plan)(*(plan.shard(each, 2) for each in (q, k, v)), inputs=mine)
            one = attn(q, k, v, inputs=whole)
            torch.testing.assert_close(part, plan.shard(one, 2), rtol=1e-9, atol=1e-9, msg=f"{path.name}: {name}")
            kinds |= {decl.kind for decl in attn.inputs}
    assert len(kinds) >= 6
