"""A step over a cache that has dropped keys (`KVCache.keep`), beside SDPA, masks and a window: a table in Markdown.

    python tests/bench/kept.py --tokens 32768 --keep 0.1 --threads 1

The calls are timed in turn; each figure is the least of all rounds, for other work on the machine only adds to it.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

import sparsec

HEADS, KV_HEADS, DIM, SINK, NEAR = 8, 2, 64, 4, 64
ROOM = 8192
"""Tokens that the timed steps may add."""


def compiled(term: str, inputs: str = "") -> sparsec.SparseAttention:
    text = f"pattern p {{ heads {HEADS} kv {KV_HEADS} causal {inputs} attend sink({SINK}) | {term} }}"
    return sparsec.compile(text, head_dim=DIM, device="cpu", target="cpu")


def least_ms(calls: dict[str, Callable[[], object]], rounds: int, steps: int) -> dict[str, float]:
    found = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            for _ in range(1 if name in ("dense", "masked") else steps):
                start = time.perf_counter()
                call()
                found[name] = min(found[name], (time.perf_counter() - start) * 1e3)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tokens", type=int, default=32768)
    options.add_argument("--keep", type=float, default=0.1)
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--rounds", type=int, default=60)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", message="the cache keeps every key")
    length = given.tokens
    k, v = (torch.randn(1, KV_HEADS, length, DIM) for _ in range(2))
    last, long = torch.randn(1, HEADS, 1, DIM), torch.randn(1, HEADS, length, DIM)
    left = torch.rand(1, KV_HEADS, length) < given.keep
    new: tuple[Tensor, Tensor] = (k[:, :, :1].clone(), v[:, :, :1].clone())
    unmarked = {"kept": torch.zeros(1, KV_HEADS, 1, dtype=torch.bool)}

    attn = compiled(f"window({NEAR}) | kept", "input kept : tokens")
    masked = attn.new_cache(1, length + ROOM)
    attn(long, k, v, cache=masked, inputs={"kept": left})
    kept = masked.fork()
    kept.keep("kept", left)
    window = compiled(f"window({int(left.sum()) // KV_HEADS + NEAR})")
    near = window.new_cache(1, length + ROOM)
    window(long, k, v, cache=near)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    nbytes = {"dense": k.nbytes + v.nbytes, "masked": k.nbytes + v.nbytes, "kept": kept.nbytes, "window": near.nbytes}
    own = int(left.sum()) * 2 * DIM * k.element_size()
    times = least_ms(
        {
            "dense": lambda: sdpa(last, k, v, enable_gqa=True),
            "masked": lambda: attn(last, *new, cache=masked, inputs=unmarked),
            "kept": lambda: attn(last, *new, cache=kept, inputs=unmarked),
            "window": lambda: window(last, *new, cache=near),
        },
        given.rounds,
        20,
    )
    names = {
        "dense": "every key, SDPA",
        "masked": "every key, masked",
        "kept": "`keep`",
        "window": "a window of as many keys",
    }
    print("| | cache | ms a token |\n|---|---|---|")
    for name, said in names.items():
        print(f"| {said} | {nbytes[name] / 1e6:.1f} MB | {times[name]:.3g} |")
    print(f"\nbytes over those of the kept keys: {kept.nbytes / own:.2f}")
    ratios = times["dense"] / times["kept"], times["kept"] / times["window"]
    print("SDPA over `keep`: {:.1f}x; `keep` over the window: {:.2f}x".format(*ratios))


if __name__ == "__main__":
    main()
