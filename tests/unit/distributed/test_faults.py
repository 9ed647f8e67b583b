"""Ranks that differ, that die and that stall: what the others are told, and when."""

from __future__ import annotations

import os
import re
import time

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from together import run

import sparsec
from sparsec.distributed import ExchangeError

pytestmark = pytest.mark.kernels

WINDOW, DENSE = "pattern p { causal attend sink(4) | window(40) }", "pattern p { causal attend full }"


def module(text: str = DENSE) -> sparsec.SparseAttention:
    return sparsec.compile(text, heads=2, kv_heads=1, head_dim=16, target="torch")


def plans_that_differ() -> None:
    rank = dist.get_rank()
    for name, text, length, balance in (
        ("pattern", WINDOW if rank else DENSE, 100, "work"),
        ("seq_len", DENSE, 100 + rank, "work"),
        ("balance", DENSE, 100, None if rank == 1 else "zigzag"),
    ):
        with pytest.raises(sparsec.CallError, match=f"expected the same {name} on every rank, got .* on rank 1"):
            sparsec.distributed.plan(module(text), dist.group.WORLD, length, balance=balance)  # type: ignore[arg-type]  # one of its values


def calls_that_are_wrong() -> None:
    attn = module()
    group = dist.group.WORLD
    plan = sparsec.distributed.plan(attn, group, 100)
    q, k = torch.zeros(1, 2, plan.tokens, 16), torch.zeros(1, 1, plan.tokens, 16)
    with pytest.raises(sparsec.CallError, match=r"expected q with this rank's \d+ tokens along dimension 2, got"):
        attn.parallel(plan)(q[:, :, 1:], k, k)
    with pytest.raises(sparsec.CallError, match="expected the pattern, head counts and dimensions that the plan"):
        module(WINDOW).parallel(plan)
    with pytest.raises(sparsec.CallError, match="expected a pattern with documents, got one without"):
        plan.for_documents([0, 100])
    with pytest.raises(sparsec.CallError, match="expected 100 tokens along dimension 2"):
        plan.shard(q, 2)
    with pytest.raises(sparsec.CallError, match="expected balance 'work', 'zigzag', None or a plan, got 'even'"):
        sparsec.distributed.plan(attn, group, 100, balance="even")  # type: ignore[arg-type]  # none of its values
    with pytest.raises(sparsec.CallError, match="expected seq_len between 3 and"):
        sparsec.distributed.plan(attn, group, 1)
    packed = module("pattern p { causal documents attend full }")
    plan = sparsec.distributed.plan(packed, group, 100)
    with pytest.raises(sparsec.CallError, match="expected a plan for documents"):
        packed.parallel(plan)
    with pytest.raises(sparsec.CallError, match="expected cu_seqlens from 0 to 100 without a decrease, got"):
        plan.for_documents([0, 60, 40, 100])


def mistakes() -> None:
    plans_that_differ()
    calls_that_are_wrong()


def test_mistakes() -> None:
    run(mistakes, 3)


def one_goes(way: str, phase: str) -> None:
    attn = module()
    plan = sparsec.distributed.plan(attn, dist.group.WORLD, 100)
    q, k = torch.zeros(1, 2, plan.tokens, 16), torch.zeros(1, 1, plan.tokens, 16)
    parallel, more = attn.parallel(plan), {}
    if phase == "partial results":
        more = {"cache": parallel.new_cache(1, 200)}
    parallel(q, k, k, **more)
    if dist.get_rank() == 2:
        if way == "dies":
            os._exit(7)
        time.sleep(12)
        os._exit(7)
    began = time.monotonic()
    with pytest.raises(ExchangeError) as caught:
        parallel(q, k, k, **more)
    assert time.monotonic() - began < 15
    assert re.match(rf"rank \d: the exchange of {phase} failed, and rank 2 does not answer", str(caught.value))
    os._exit(0)  # the group is of no use


@pytest.mark.parametrize(
    ("way", "phase"), [("dies", "keys and values"), ("stalls", "keys and values"), ("dies", "partial results")]
)
def test_a_rank_that_goes(way: str, phase: str) -> None:
    with pytest.raises(mp.ProcessExitedException, match="exit code 7"):
        run(one_goes, 3, way, phase, timeout=4.0)
