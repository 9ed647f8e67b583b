"""A KV cache that 1 to 4 processes hold in parts, against that of one process: prompts, steps, and what is kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from together import group_of, run
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

import sparsec
from sparsec.pipeline import Lowered
from sparsec.runtime.compile import module_for
from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.request import Request

pytestmark = pytest.mark.kernels

PATTERNS = (
    "heads 4 kv 2  causal  attend full",
    "heads 4 kv 2  block 16  causal  learned_sink  alibi  attend sink(4) | window(40)",
    "heads 4 kv 4  block 16  causal  attend window(2b) | stride(4b, phase = -h)",
    "heads 4 kv 2  block 16  causal  attend window(30) | stride(4b)",
    "heads 4 kv 2  block 16  causal  where g < 1 attend full  where g >= 1 attend sink(3) | window(20)",
    "heads 2 kv 1  block 16  causal  softcap 5  attend window(6) | stride(5) | (window(50) & dilated(3))",
    "heads 2 kv 1  block 16  causal  attend random(1, seed = 3)",
)
DIM, PROMPT, ROOM = 16, 101, 160


class Both:
    """One process with the whole sequences beside this rank's part: the same calls, and equal results."""

    def __init__(
        self, attn: SparseAttention, mesh: Any, batch: int, rollback: int = 0, shard: Any = "sequence"
    ) -> None:
        self.attn = attn
        self.plan = sparsec.distributed.plan(attn, mesh, PROMPT, shard=shard)
        self.parallel: Any = attn.parallel(self.plan)
        self.one: KVCache = attn.new_cache(batch, ROOM, rollback=rollback)
        self.part: KVCache = self.parallel.new_cache(batch, ROOM, rollback=rollback)
        self.exact = {"rtol": 1e-9, "atol": 1e-9} if attn.dtype == torch.float64 else {"rtol": 1e-4, "atol": 2e-5}
        self.generator = torch.Generator().manual_seed(1)

    def qkv(self, tokens: int) -> list[Tensor]:
        heads = self.attn.heads, self.attn.kv_heads, self.attn.kv_heads
        shapes = [(self.one.batch_size, each, tokens, DIM) for each in heads]
        return [torch.randn(shape, generator=self.generator).to(self.attn.dtype) for shape in shapes]

    def prompt(self, lengths: list[int] | None = None, inputs: Any = None, mine: Any = None) -> None:
        whole = self.qkv(PROMPT)
        expected = self.attn(*whole, cache=self.one, return_lse=True, lengths=lengths, inputs=inputs)
        local = [self.plan.shard(each, 2) for each in whole]
        more = {} if mine is None else {"inputs": mine}
        found = self.parallel(*local, cache=self.part, return_lse=True, lengths=lengths, **more)
        for one, part in zip(expected, found, strict=True):
            torch.testing.assert_close(part, self.plan.shard(one, 2), **self.exact)
        assert self.part.lengths == self.one.lengths

    def step(self, tokens: int = 1, lengths: list[int] | None = None, inputs: Any = None, **more: Any) -> None:
        new = self.qkv(tokens)
        expected = self.attn(*new, cache=self.one, return_lse=True, lengths=lengths, inputs=inputs)
        more |= {} if inputs is None else {"inputs": inputs}
        found = self.parallel(*new, cache=self.part, return_lse=True, lengths=lengths, **more)
        for one, part in zip(expected, found, strict=True):
            torch.testing.assert_close(part, one, **self.exact)
        assert self.part.lengths == self.one.lengths


def compiled(body: str, target: str = "torch", dtype: torch.dtype = torch.float64) -> SparseAttention:
    pattern = sparsec.parse(f"pattern p {{ {body} }}").pattern("p").lowered(None, None).pattern
    attn = module_for(Request(Lowered(pattern), DIM, DIM, dtype), target, torch.device("cpu"))
    if attn.sink is not None:
        torch.nn.init.normal_(attn.sink, generator=torch.Generator().manual_seed(0))
    return attn


def steps(attn: SparseAttention, group: Any, number: int) -> None:
    both = Both(attn, group, batch=3, rollback=2)
    both.prompt(None if number % 2 else [PROMPT, 50, 7])
    both.step()
    both.step(9, lengths=[9, 0, 4])
    with pytest.raises(sparsec.CallError, match="expected tokens that every rank gives for a cache with tokens"):
        both.parallel(*both.qkv(1), cache=both.part, replicated=False)
    for cache in (both.one, both.part):
        cache.truncate([length - 2 for length in cache.lengths])
    both.step(20)
    for cache in (both.one, both.part):
        cache.reorder([2, 0, 1])
        cache.release(1)
    both.part, both.one = both.part.fork(), both.one.fork()
    both.step(lengths=[1, 0, 1])
    bytes_of_ranks = [0] * dist.get_world_size(group)
    dist.all_gather_object(bytes_of_ranks, both.part.nbytes, group)
    assert both.one.nbytes <= sum(bytes_of_ranks)
    spare = 2 * attn.kv_heads * (3 * attn.lowered.pattern.block + 2) * both.one.batch_size * 2 * DIM
    assert max(bytes_of_ranks) <= both.one.nbytes / len(bytes_of_ranks) + spare * attn.dtype.itemsize


def steps_with_inputs(mesh: Any, shard: Any = "sequence") -> None:
    """What inputs say of keys is remembered on every rank."""
    declared = "input marked : tokens  input picks : rows  input names : labels  input w : weights  key_bias w"
    terms = "window(9) | marked | picks | names"
    attn = compiled(f"heads 4 kv 2  {declared}  causal  attend {terms}")
    both = Both(attn, mesh, batch=2, shard=shard)

    def given(tokens: int) -> dict[str, Any]:
        def numbers(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=both.generator)

        names = (numbers(12, 1, 1, tokens) - 8).int(), (numbers(12, 1, 1, tokens) - 8).int()
        return {
            "marked": numbers(30, 2, 2, tokens) == 0,
            "picks": numbers(PROMPT, 2, 2, tokens, 2),
            "names": names,
            "w": torch.randn((2, 2, tokens), generator=both.generator),
        }

    whole, shard = given(PROMPT), both.plan.shard
    mine = {name: shard(each, -1) for name, each in whole.items() if name in ("marked", "w")}
    mine |= {"picks": shard(whole["picks"], 2), "names": tuple(shard(each, -1) for each in whole["names"])}
    both.prompt([PROMPT, 31], whole, mine)
    both.step(inputs=given(1))
    both.step(5, lengths=[2, 5], inputs=given(5))


def steps_with_tiles(mesh: Any, shard: Any = "sequence") -> None:
    """Rows of tiles that queries touch, and drafts that every rank verifies."""
    attn = compiled(
        "heads 4 kv 2  input tiles : blocks(12, 10)  input t : tree  causal  attend (tiles | window(9)) & t"
    )
    both = Both(attn, mesh, batch=2, shard=shard)

    def given(rows: int, drafts: int) -> dict[str, Any]:
        tiles = torch.rand((2, 2, rows, ROOM // 10 + 1), generator=both.generator) < 0.3
        return {"tiles": tiles, "t": torch.randint(-1, 1, (2, drafts), generator=both.generator)}

    whole = given(-(-PROMPT // 12), 3)
    mine = {"tiles": both.plan.shard(whole["tiles"], 2, tile=12), "t": whole["t"]}
    short = [PROMPT, 31]
    with pytest.raises(
        sparsec.CallError, match=f"sequences of the plan's {PROMPT} tokens for input 'tiles', got one of 31"
    ):
        both.parallel(
            *(both.plan.shard(each, 2) for each in both.qkv(PROMPT)), cache=both.part, lengths=short, inputs=mine
        )
    both.prompt(None, whole, mine)
    both.step(inputs=given(1, 1))
    both.step(6, inputs=given(2, 6))


KEEPS = (
    "heads 4 kv 2  block 16  causal  input kept : tokens  attend sink(4) | window(20) | kept",
    "heads 4 kv 2  block 16  causal  input kept : tokens  attend window(1b) | kept & (stride(3) | window(60))",
)
MERGES = "heads 4 kv 2  block 16  causal  input kept : tokens  input w : weights  key_bias w  attend window(8) | kept"


def bytes_of_all(cache: KVCache, group: Any) -> list[int]:
    found = [0] * dist.get_world_size(group)
    dist.all_gather_object(found, cache.nbytes, group)
    return found


def kept_by_marks(attn: SparseAttention, group: Any) -> None:
    """Marks taken away twice, with steps between them; then what no rank may do."""
    both = Both(attn, group, batch=2)

    def marks(n: int, share: float, heads: int = 4) -> Tensor:
        return torch.rand((2, heads, n), generator=both.generator) < share

    given = marks(PROMPT, 0.8)
    both.prompt([PROMPT, 70], {"kept": given}, {"kept": both.plan.shard(given, -1)})
    given[1] = given[1].roll(70 - PROMPT, -1)  # of the tokens that it has
    given[1, :, 70:] = False
    given, room = marks(PROMPT, 0.5) & given, None
    for turn in range(2):
        for cache in (both.one, both.part):
            cache.keep("kept", given, room=room)
        both.step(3, inputs={"kept": marks(3, 0.7)})
        both.step(5, lengths=[5, 2], inputs={"kept": marks(5, 0.7, 2)})
        of_ranks, ranks = bytes_of_all(both.part, group), dist.get_world_size(group)
        assert max(of_ranks) <= both.one.nbytes / ranks + 2 * 8 * DIM * 2 * 2 * 60
        given, room = marks(both.one.length, 0.6) if turn else given, 9
        given = torch.nn.functional.pad(given, (0, both.one.length - given.shape[-1]), value=False)
    for cache in (both.one, both.part):
        with pytest.raises(sparsec.CallError, match="expected marks that were there before, got a new one of key"):
            cache.keep("kept", torch.ones(2, cache.length, dtype=torch.bool))
        cache.truncate([length - 1 for length in cache.lengths])
    both.part, both.one = both.part.fork(), both.one.fork()
    both.step(inputs={"kept": marks(1, 0.5)})
    for cache in (both.one, both.part):
        with pytest.raises(sparsec.CallError, match="room for"):
            for _ in range(9):
                q = both.qkv(4)
                (both.attn if cache is both.one else both.parallel)(
                    *q, cache=cache, inputs={"kept": torch.ones(1, 4, dtype=torch.bool)}
                )
    both.part.reset()
    shard = both.plan.shard
    with pytest.raises(sparsec.CallError, match="expected a cache without lists of `keep` for a prompt in shares"):
        both.parallel(
            *(shard(each, 2) for each in both.qkv(PROMPT)),
            cache=both.part,
            inputs={"kept": shard(marks(PROMPT, 0.5), -1)},
        )


def merged_keys(group: Any) -> None:
    """Groups whose keys lie on several ranks, twice."""
    both = Both(compiled(MERGES), group, batch=2)

    def said(n: int) -> dict[str, Any]:
        weights = torch.randn((2, 2, n), generator=both.generator)
        return {"kept": torch.ones(2, n, dtype=torch.bool), "w": weights}

    given = said(PROMPT)
    both.prompt(None, given, {name: both.plan.shard(each, -1) for name, each in given.items()})
    labels = torch.full((2, 2, PROMPT), -1)
    labels[..., : PROMPT - 8] = torch.randint(-1, 20, (2, 2, PROMPT - 8), generator=both.generator)
    for cache in (both.one, both.part):
        cache.merge("kept", labels)
    both.step(4, inputs=said(4))
    left = torch.full((2, 2, PROMPT + 4), -1)
    for b in range(2):
        for g in range(2):
            last = {int(label): j for j, label in enumerate(labels[b, g]) if label >= 0}
            left[b, g, sorted(last.values())[:9]] = torch.arange(9) // 3
    for cache in (both.one, both.part):
        cache.merge("kept", left)
    both.step(2, inputs=said(2))
    wrong = torch.zeros((2, PROMPT + 6), dtype=torch.int64)
    for cache in (both.one, both.part):
        with pytest.raises(sparsec.CallError, match=r"expected groups of keys .*; nothing was merged"):
            cache.merge("kept", wrong)
    both.step(inputs=said(1))


def from_nothing(group: Any) -> None:
    """Tokens that every rank has in an empty cache, which grows."""
    both = Both(compiled(PATTERNS[1], "cpu", torch.float32), group, batch=1)
    both.one, both.part = both.attn.new_cache(1), both.parallel.new_cache(1)
    for tokens in (5, 1, 90):
        both.step(tokens, replicated=True)
    assert both.part.max_len == both.one.max_len > 90
    for lost in (80, 20):
        for cache in (both.one, both.part):
            with pytest.raises(sparsec.CallError, match=f"got {lost} for sequence 0: key .* has been overwritten"):
                cache.truncate(lost)
    with pytest.raises(sparsec.CallError, match="expected a cache of this module's new_cache on the plan's ranks"):
        other = compiled(PATTERNS[0])
        other.parallel(sparsec.distributed.plan(other, group, PROMPT))(*both.qkv(1), cache=both.part)
    with pytest.raises(sparsec.CallError, match="expected lengths and replicated with a cache alone"):
        both.parallel(*both.qkv(1), replicated=True)


def of_heads(shard: Any) -> None:
    size = dist.get_world_size()
    mesh = init_device_mesh("cpu", (2, size // 2) if isinstance(shard, tuple) else (size,))
    for number in (1, 4):
        body = PATTERNS[number].replace("heads 4", "heads 8")
        both = Both(compiled(body), mesh, batch=2, shard=shard)
        both.prompt([PROMPT, 40])
        both.step()
        both.step(6, lengths=[6, 1])
    q, k, v = both.qkv(1)
    for wrong, said in (
        ((q[:, :-1], k, v), rf"expected q of shape \[B, {q.shape[1]}, Nq, 16\], got"),
        ((q, k[:, :1], v), "expected k of shape"),
        ((q, k, v[0]), "expected v of shape"),
    ):
        with pytest.raises(sparsec.CallError, match=said):  # on every rank
            both.parallel(*wrong, cache=both.part)
    with pytest.raises(sparsec.CallError, match=r"expected cache of type \w*Cache, got list"):
        both.parallel(q, k, v, cache=[])
    both.step()
    steps_with_inputs(mesh, shard)
    steps_with_tiles(mesh, shard)


@torch.no_grad()
def all_of_it() -> None:
    for ranks in (4, 3, 2, 1):
        group = group_of(ranks)
        if group is None:
            continue
        for number, body in enumerate(PATTERNS):
            if ranks == 4 or number == ranks:
                try:
                    steps(compiled(body), group, number)
                except Exception as error:
                    raise AssertionError(f"{body}, {ranks} ranks") from error
        if ranks == 3:
            steps_with_inputs(group)
            steps_with_tiles(group)
            kept_by_marks(compiled(KEEPS[0]), group)
            merged_keys(group)
        if ranks == 2:
            kept_by_marks(compiled(KEEPS[1]), group)
            kept_by_marks(compiled(KEEPS[0], "cpu", torch.float32), group)
            from_nothing(group)
    dist.barrier()
    of_heads("heads")
    of_heads(("sequence", "heads"))


def test_a_cache_in_parts() -> None:
    run(all_of_it, 4)
