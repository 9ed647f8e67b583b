"""Gluon's forward kernels on this card: right or wrong, and their times beside Triton's and PyTorch's, into gluon.json.

    python tests/gpu/gluon.py --out FOLDER

Each check is a process of its own: a kernel that waits for ever, or reads what it must not, costs its own row alone.
Where no kernel was found right, none is timed.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as Late
from typing import Any

import torch
from bench import in_rounds, recordings
from cases import DENSE, Row, rows
from gpu import REHEARSAL, card, free, synchronize
from results import Results
from step import arguments

import sparsec
from sparsec.bench.baseline_calls import Passes, baseline_calls
from sparsec.diagnostics.model import in_one_line
from sparsec.runtime.module import SparseAttention

TARGET = "triton" if REHEARSAL else "gluon"
SOURCES = {
    "dense": "pattern p { causal attend full }",
    "window": "pattern p { causal attend sink(10) | window(300) }",
    "s2": "pattern p { block 64 causal attend sink(64) | window(4b) | stride(4b, phase = -g) }",
    "random": "pattern p { block 64 causal attend window(2b) | random(3, seed = 5) }",
    "duo": "pattern p { causal where g in [0] attend full otherwise attend sink(64) | window(256) }",
    "bent": "pattern p { causal attend sink(10) | window(300)  softcap 30  alibi  learned_sink }",
    "documents": "pattern p { causal documents attend window(100) }",
    "minference": "pattern p { block 64 input listed : columns input s : slashes(tiles) causal attend listed | s }",
    "listed": "pattern p { input listed : columns causal documents restart alibi attend listed | window(100) }",
}
HEADS, KV_HEADS = 8, 2
CASES = (
    *([("s2", 16, "bfloat16")] if REHEARSAL else []),
    *((name, 128, "bfloat16") for name in SOURCES),
    *((name, 64, "bfloat16") for name in SOURCES),
    ("s2", 128, "float16"),
)[: 1 if REHEARSAL else None]
CALLS = ((40, 40),) if REHEARSAL else ((1, 1), (65, 65), (500, 1000), (1500, 1500), (4000, 4000))
BOUNDS = (0, 100, 100, 357, 358)
"""Of documents, and the last one ends where the tokens do."""
CHECK_SECONDS = 500.0 if REHEARSAL else 50.0


def main() -> int:
    given, found = arguments(__doc__), card()
    results = Results(given.out / "gluon.json", {"card": found.name, "target": TARGET})
    spawn = multiprocessing.get_context("spawn")
    pools = [ProcessPoolExecutor(1, mp_context=spawn) for _ in CASES]
    running = {pool.submit(check, *case): case for pool, case in zip(pools, CASES, strict=True)}
    until = time.monotonic() + min(CHECK_SECONDS, given.left() * 0.7)
    for future, (name, head_dim, dtype) in running.items():
        try:
            outcome = future.result(timeout=max(0.1, until - time.monotonic()))
        except Late:
            outcome = {"error": "not done in time"}
        except Exception as error:
            outcome = {"error": in_one_line(error)}
        results.add({"check": name, "head_dim": head_dim, "dtype": dtype, **outcome})
    for process in multiprocessing.active_children():  # those that wait for ever too
        process.kill()
    if any(row.get("right") for row in results.data["rows"]):
        for row in (row for row in rows() if not row.decode and row.against == DENSE and row.length < 100_000):
            if not given.left():
                break
            named = {name: getattr(row, name) for name in ("pattern", "length", "head_dim", "batch")}
            try:
                results.add({**named, **times(row)})
            except Exception as error:
                results.add({**named, "error": in_one_line(error)})
            free()
    return int(any("error" in row or row.get("right") is False for row in results.data["rows"]))


def check(name: str, head_dim: int, dtype: str) -> dict[str, Any]:
    """Output and LSE against float32 by the reference, twice the same bits, and rows that do not see a NaN."""
    device, kind, worst = card().device, getattr(torch, dtype), 0.0
    given = {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": head_dim}
    attn, plain = (
        sparsec.compile(SOURCES[name], dtype=kind, device=device, target=t, **given) for t in (TARGET, "torch")
    )
    exact = sparsec.compile(SOURCES[name], dtype=torch.float32, target="reference", **given).to(device)
    of_heads(attn, plain, exact)
    for nq, nk in CALLS:
        if attn.documents and nq != nk:
            continue
        torch.manual_seed(nq)
        call = [torch.randn(2, h, n, head_dim, device=device).to(kind) for h, n in ((HEADS, nq), *[(KV_HEADS, nk)] * 2)]
        more: dict[str, Any] = {"return_lse": True, **inputs_of(name, nk)}
        if attn.documents:
            call = [t[:1] for t in call]
            more = {**more, **inputs_of(name, nk, batch=1)}
            more["cu_seqlens"] = torch.tensor([min(b, nq) for b in (*BOUNDS, nq)], dtype=torch.int32, device=device)
        with torch.no_grad():
            found, again, theirs = attn(*call, **more), attn(*call, **more), plain(*call, **more)
            right = exact(*(t.float() for t in call), **more)
            call[1][:, :, -1], call[2][:, :, -1] = torch.nan, torch.nan
            poisoned = attn(*call, **more)[0]
        synchronize()
        error, allowed = ((t[0].float() - right[0]).abs().max().item() for t in (found, theirs))
        worst = max(worst, error)
        why = ""
        if not error <= max(2 * allowed, 1e-5):
            why = f"off by {error}, allowed {2 * allowed}"
        elif not torch.allclose(found[1], right[1], rtol=1e-3, atol=1e-3):
            why = f"LSE off by {(found[1] - right[1]).abs().max().item()}"
        elif not all(torch.equal(a, b) for a, b in zip(found, again, strict=True)):
            why = "two runs differ"
        elif not attn.documents and not torch.allclose(poisoned[:, :, :-1], found[0][:, :, :-1], rtol=2e-2, atol=2e-2):
            why = (
                "rows before a NaN changed"  # other bits: Triton's kernel gives those of the tiles that may have met it
            )
        if why:
            return {"right": False, "why": f"{nq} queries, {nk} keys: {why}", "error_found": worst}
    if not attn.documents and (why := of_module(attn, head_dim, kind, inputs_of(name, CALLS[-1][0]))):
        return {"right": False, "why": why, "error_found": worst}
    return {"right": True, "largest_error": worst}


def inputs_of(name: str, n_keys: int, batch: int = 2) -> dict[str, Any]:
    """Of each head its own list: a third of the keys, some of them none."""
    if "input listed" not in SOURCES[name]:
        return {}
    made = torch.Generator().manual_seed(n_keys)
    order = torch.rand((batch, HEADS, n_keys + 9), generator=made).argsort(-1)
    given = {"listed": order[..., : n_keys // 3 + 1].to(torch.int32)}
    if "input s :" in SOURCES[name]:
        given["s"] = torch.arange(0, 192, 64, dtype=torch.int32).expand(batch, HEADS, 3)
    return {"inputs": {each: lists.to(card().device) for each, lists in given.items()}}


def of_module(attn: SparseAttention, head_dim: int, dtype: torch.dtype, more: dict[str, Any]) -> str:
    """Odd addresses, other strides, gradients, and a graph's replay against plain calls; what is wrong, or nothing."""
    device, n = card().device, CALLS[-1][0]
    torch.manual_seed(n)
    call = [torch.randn(2, h, n, head_dim, device=device).to(dtype) for h in (HEADS, KV_HEADS, KV_HEADS)]
    with torch.no_grad():
        expected = attn(*call, **more)
        odd = [torch.cat((t.new_zeros(1), t.flatten()))[1:].view(t.shape) for t in call]
        strided = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in call]
        for what, other in (("odd addresses", odd), ("other strides", strided)):
            if not torch.equal(attn(*other, **more), expected):
                return f"{what} change the output"
    leaves = [t.clone().requires_grad_() for t in call]
    grads = torch.autograd.grad(attn(*leaves, **more).float().square().sum(), leaves)
    if not all(grad.isfinite().all() and grad.any() for grad in grads):
        return "gradients are not finite, or 0"
    if not REHEARSAL:
        with torch.no_grad():
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = attn(*call, **more)
            call[0].copy_(call[0].flip(2))
            graph.replay()
            if not torch.equal(out, attn(*call, **more)):
                return "a graph's replay differs from a call"
    return ""


def of_heads(*modules: SparseAttention) -> None:
    """The same learned sinks in all."""
    for each in modules:
        if each.sink is not None:
            each.to(card().device)
            with torch.no_grad():
                each.sink.copy_(torch.linspace(-1, 1, HEADS))


def times(row: Row) -> dict[str, Any]:
    """Milliseconds of a forward pass, of Triton's kernels, Gluon's and PyTorch's."""
    found = card()
    case = row.case(found.device)
    leaves = case.inputs()
    with torch.no_grad():
        ours = {target: row.compiled(found.device, target) for target in dict.fromkeys(("triton", TARGET))}
        calls = {target: [lambda attn=attn: attn(*leaves)] for target, attn in ours.items()}
        dense = baseline_calls(case.pattern, leaves, DENSE, passes=Passes.FORWARD, causal=True, report=lambda _: None)
        recorded, failed = recordings(calls | {name: [each] for name, each in dense.calls.items()}, found)
        measured, rounds = in_rounds(recorded, found)
    return {
        "ms": {name: each.seconds * 1e3 for name, each in measured.items()},
        "absent": failed | dense.absent,
        "rounds": rounds,
        "host_time_in": [name for name, each in measured.items() if each.host],
    }


if __name__ == "__main__":
    sys.exit(main())
