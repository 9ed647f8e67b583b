"""Times every candidate of `candidates.py` on this card, each checked against float64, into gpu_sweep.json.

    python tests/gpu/sweep.py --out FOLDER [--compile]

With `--compile` nothing is timed: many processes build the kernels into Triton's cache, where the sweep finds them.
`picks.py` reads the table of `plan.target` out of the file. Gradients are timed as a whole backward pass in which one
kind of kernel is the candidate and the other the rule's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from unittest.mock import patch

import torch
from candidates import Candidate, candidates
from gpu import REHEARSAL, Card, card, free
from pool import run_all, workers
from results import Results
from step import Given, arguments
from torch import Tensor

import sparsec
from sparsec.bench.clock import recorder, timed
from sparsec.diagnostics.model import in_one_line
from sparsec.plan import target as targets
from sparsec.plan.picks import Kind
from sparsec.plan.target import family
from sparsec.reference.tolerance import allowed_errors
from sparsec.runtime import kernel as kernels
from sparsec.runtime.module import SparseAttention

SOURCE = "pattern sweep {{ causal attend sink({sink}) | window({window}) }}"
WORKERS = int(os.environ.get("SPARSEC_GPU_COMPILERS", "15"))
ROWS = 64
"""Compared with float64: queries, or keys, spread over all of them."""


@dataclass(frozen=True, slots=True)
class Size:
    batch: int
    heads: int
    kv_heads: int
    length: int
    sink: int
    window: int
    chunk: int


SIZE = Size(1, 2, 1, 40, 3, 20, 20) if REHEARSAL else Size(2, 32, 8, 8192, 64, 2048, 512)
SMALL = replace(SIZE, batch=1, length=min(SIZE.length, 200), chunk=min(SIZE.chunk, 64))
"""For building: a kernel serves every length and batch."""


def source() -> str:
    return SOURCE.format(sink=SIZE.sink, window=SIZE.window)


def main() -> int:
    given = arguments(__doc__, compile={"action": "store_true"})
    return build_all(given) if given.rest["compile"] else sweep(given)


def build_all(given: Given) -> int:
    """Builds the candidates in processes of their own; the rules' first, since others' calls need those too."""
    every = tuple(candidates(card().target))
    with workers(WORKERS) as pool:
        for rule in (True, False):
            run_all(pool, build, [(each,) for each in every if each.rule is rule], given)
    return 0


def build(candidate: Candidate) -> str:
    """Runs the candidate's kernels once."""
    with chosen(candidate):
        task(candidate, SMALL, card().device).call()
    return ""


def sweep(given: Given) -> int:
    found = card()
    about = {
        "card": found.name,
        "target": found.target,
        "size": repr(SIZE),
        "pattern": source(),
    }
    results = Results(given.out / "gpu_sweep.json", about)
    every = tuple(candidates(found.target))
    results.say(planned=len(every))
    for candidate in every:
        if not given.left():
            results.say(left_out=len(every) - len(results.data["rows"]))
            break
        results.add({**candidate.as_row(), **one(candidate, found)})
    return 0


def one(candidate: Candidate, found: Card) -> dict[str, object]:
    """What the row of a candidate says beside the candidate."""
    row: dict[str, object] = {"ms": None, "error": None, "right": None, "spill_bytes": None, "registers": None}
    try:
        with chosen(candidate):
            made = task(candidate, SIZE, found.device)
            row["right"], row["largest_error"], row["allowed_error"] = made.check()
            row["ms"], row["host_time"] = milliseconds(made, found)
    except Exception as error:
        row["error"] = in_one_line(error)
    row |= usage(candidate)
    free()
    return row


def milliseconds(made: Task, found: Card) -> tuple[float, bool]:
    taken = timed({"": recorder(found.device)([made.call])}, repeats=1 if REHEARSAL else 9, device=found.device)[""]
    made.reset()
    return taken.seconds * 1e3, taken.host


def usage(candidate: Candidate) -> dict[str, object]:
    """Registers and local bytes a thread, by Triton's record of the candidate's kernel; nothing if it has none."""
    name = {Kind.CHUNK: "attend_0"}.get(candidate.kind, f"{candidate.kind.value}_0")
    for module in loaded():
        for caches in getattr(getattr(sys.modules[module], name, None), "device_caches", {}).values():
            for built in caches[0].values():
                found = {"registers": built.n_regs, "spill_bytes": 4 * built.n_spills}
                return {**found, "shared_bytes": built.metadata.shared}
    return {}


def loaded() -> list[str]:
    return [name for name in sys.modules if name.startswith("sparsec_triton_")]


@contextmanager
def chosen(candidate: Candidate) -> Iterator[None]:
    """While it lasts, the candidate is what `plan.target` gives; nothing that was compiled before is remembered."""
    kernels._KERNELS.clear()
    for name in loaded():
        del sys.modules[name]
    key = (family(card().target), candidate.kind, candidate.head_dim, candidate.dtype)
    with patch.object(targets, "PICKS", {key: candidate.pick}):
        yield


@dataclass(frozen=True, slots=True)
class Task:
    """A candidate's call: `check` gives (right, largest error, allowed error), `reset` undoes what calls have added."""

    call: Callable[[], object]
    check: Callable[[], tuple[bool, float, float]]
    reset: Callable[[], None]


def task(candidate: Candidate, size: Size, device: torch.device) -> Task:
    dtype = getattr(torch, candidate.dtype)
    attn = sparsec.compile(
        source(),
        heads=size.heads,
        kv_heads=size.kv_heads,
        head_dim=candidate.head_dim,
        dtype=dtype,
        device=device,
        target="triton",
    )
    made = inputs(candidate.head_dim, dtype, replace(size, chunk=0), device)
    if candidate.kind is Kind.FORWARD:
        q, k, v, _ = made
        return Task(_no_grad(lambda: attn(q, k, v)), lambda: compare(attn(q, k, v), "out", made), lambda: None)
    if candidate.kind in (Kind.GRAD_QUERIES, Kind.GRAD_KEYS):
        return _backward(attn, candidate, made)
    return _cached(attn, candidate, size, made)


def _no_grad(call: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return call()

    return run


def _backward(attn: SparseAttention, candidate: Candidate, made: tuple[Tensor, ...]) -> Task:
    """The backward operator alone, on an exact output: no forward kernel is needed."""
    q, k, v, g = made
    known = exact(candidate.head_dim, q.dtype, _size_of(q, k), q.device)
    out, lse = known.out.to(q.dtype), known.lse.float()
    assert isinstance(attn._kernel, str)
    backward = kernels.registered(attn._kernel).backward.backward

    def call() -> tuple[Tensor | None, ...]:
        return backward(g, None, q, k, v, out, lse, q_offset=0, scale=None, lists=())

    names = ("dq",) if candidate.kind is Kind.GRAD_QUERIES else ("dk", "dv")

    def check() -> tuple[bool, float, float]:
        found = dict(zip(("dq", "dk", "dv"), call(), strict=False))
        each = [compare(found[name], name, made) for name in names]
        return all(right for right, _, _ in each), max(e for _, e, _ in each), max(a for _, _, a in each)

    return Task(call, check, lambda: None)


def _cached(attn: SparseAttention, candidate: Candidate, size: Size, made: tuple[Tensor, ...]) -> Task:
    """The last tokens over a cache that holds those before."""
    q, k, v, _ = made
    new = 1 if candidate.kind is Kind.DECODE else size.chunk
    kept = size.length - new
    cache = attn.new_cache(size.batch, size.length + 64 * new, device=q.device)
    few = [t[:, :, kept:].contiguous() for t in (q, k, v)]

    def empty() -> None:
        cache.lengths_tensor.fill_(kept)
        cache.refresh()

    @torch.no_grad()
    def check() -> tuple[bool, float, float]:
        cache.reset()
        for first in range(0, kept, 4096):
            attn(*(t[:, :, first : min(first + 4096, kept)] for t in (q, k, v)), cache=cache)
        found = compare(attn(*few, cache=cache), "out", made, kept)
        empty()
        return found

    empty()  # a length at which the kernels of the candidate serve; what the slots hold does not matter to the time
    return Task(_no_grad(lambda: attn(*few, cache=cache)), check, empty)


@lru_cache(maxsize=1)
def inputs(head_dim: int, dtype: torch.dtype, size: Size, device: torch.device) -> tuple[Tensor, ...]:
    """Normal q, k, v and a gradient of the output."""
    generator = torch.Generator(device).manual_seed(7)
    heads = (size.heads, size.kv_heads, size.kv_heads, size.heads)
    shapes = [(size.batch, count, size.length, head_dim) for count in heads]
    return tuple(torch.randn(shape, generator=generator, device=device).to(dtype) for shape in shapes)


def _size_of(q: Tensor, k: Tensor) -> Size:
    return Size(q.shape[0], q.shape[1], k.shape[1], q.shape[2], SIZE.sink, SIZE.window, 0)


@dataclass(frozen=True, slots=True)
class Exact:
    """float64 results, of the heads of the last KV group of the last sequence where `rows` says so.

    out, lse: of all heads, for a backward pass to start from (the plain dtype's precision is enough there). group: the
    group's out, dq, dk, dv in float64; plain: the same computed in the dtype, the yardstick of the tolerance.
    """

    out: Tensor
    lse: Tensor
    group: dict[str, Tensor]
    plain: dict[str, Tensor]


@lru_cache(maxsize=1)
def exact(head_dim: int, dtype: torch.dtype, size: Size, device: torch.device) -> Exact:
    q, k, v, g = inputs(head_dim, dtype, size, device)
    share, seen = size.heads // size.kv_heads, live(size, device)
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)
    for batch in range(size.batch):
        for head in range(size.heads):
            one_k, one_v = (t[batch, head // share].float() for t in (k, v))
            scores = (q[batch, head].float() @ one_k.T * head_dim**-0.5).masked_fill_(~seen, -torch.inf)
            lse[batch, head] = torch.logsumexp(scores, -1)
            out[batch, head] = (torch.softmax(scores, -1) @ one_v).to(dtype)
    of_group = {}
    for name, kind in (("exact", torch.float64), ("plain", dtype)):
        of_group[name] = group_results(q, k, v, g, seen, share, kind)
    # The backward kernels of the group start from the exact output.
    out[-1, -share:] = of_group["exact"]["out"].to(dtype)
    return Exact(out, lse, of_group["exact"], of_group["plain"])


def group_results(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, seen: Tensor, share: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Of the last KV group of the last sequence, by dense autograd in `dtype`: out, dq [share, N, D]; dk, dv [N, D]."""
    leaves = [t[-1, -share:] if t.shape[1] == q.shape[1] else t[-1, -1] for t in (q, k, v)]
    queries, keys, values = (t.detach().to(dtype).requires_grad_() for t in leaves)
    outs = []
    grads = [torch.zeros_like(t, dtype=torch.float64) for t in (queries, keys, values)]
    for head in range(share):  # one after the other: the scores of one take N x N
        scores = (queries[head] @ keys.T * q.shape[3] ** -0.5).masked_fill(~seen, -torch.inf)
        out = torch.softmax(scores, -1) @ values
        found = torch.autograd.grad(out, (queries, keys, values), g[-1, g.shape[1] - share + head].to(dtype))
        outs.append(out.detach())
        for total, part in zip(grads, found, strict=True):
            total += part
    return {"out": torch.stack(outs), "dq": grads[0], "dk": grads[1], "dv": grads[2]}


def live(size: Size, device: torch.device) -> Tensor:
    """The pattern of SOURCE, by its formula."""
    i = torch.arange(size.length, device=device)[:, None]
    j = torch.arange(size.length, device=device)
    return (j <= i) & ((j < size.sink) | (i - j < size.window))


def compare(found: Tensor, name: str, made: tuple[Tensor, ...], first: int = 0) -> tuple[bool, float, float]:
    """(right, largest error, allowed error) of ROWS rows, from row `first` on."""
    q, k = made[:2]
    known = exact(q.shape[3], q.dtype, _size_of(q, k), q.device)
    share = q.shape[1] // k.shape[1]
    ours = found[-1, -share:] if found.shape[1] == q.shape[1] else found[-1, -1]
    count = ours.shape[-2]
    rows = torch.linspace(0, count - 1, min(ROWS, count), device=q.device).long()
    want, plain = (t[name][..., first + rows, :].double() for t in (known.group, known.plain))
    error, yardstick = (ours[..., rows, :].double() - want).abs(), (plain - want).abs()
    largest, mean = allowed_errors(yardstick.max().item(), yardstick.mean().item(), q.dtype, len(rows))
    right = not ours.isnan().any() and error.max().item() <= largest and error.mean().item() <= mean
    return bool(right), error.max().item(), largest


if __name__ == "__main__":
    sys.exit(main())
