"""Finds keys anywhere in the context with S2's shards; a window of the same budget finds near ones alone.

A sequence holds (key, value) pairs at random places among noise, and later each key once more: what was its value?
A token's features hold those of the one before it, so a head finds the value behind a key by what stood before; for
that it must see the block that holds it. S2's four heads see another quarter of the distant blocks each, and all of
them together; the window's four heads see the same near keys.

    python examples/needle.py                    trains both models and prints a table by distance
    python examples/needle.py --quick            some seconds: shows that it runs
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from lm import Decoder, Layer, progress_bar
from torch import Tensor

import sparsec

HERE = Path(__file__).parent
HEADS, BLOCK = 4, 64
KEYS, VALUES, NOISE = 32, 16, 16
VOCABULARY = KEYS + VALUES + NOISE


def sequences(count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Symbols [count, length], and where the questions stand and how far back their pairs do, [count, KEYS] each.

    Two symbols make a slot; every key has two slots, in each of which its value follows it.
    """
    slots = length // 2
    places = torch.rand((count, slots), generator=generator).argsort(dim=1)[:, : 2 * KEYS]
    first, again = places.view(count, KEYS, 2).sort(dim=2).values.unbind(dim=2)
    symbols = torch.randint(KEYS + VALUES, VOCABULARY, (count, slots, 2), generator=generator)
    keys = torch.arange(KEYS).expand(count, KEYS)
    values = torch.randint(KEYS, KEYS + VALUES, (count, KEYS), generator=generator)
    pairs = torch.stack((keys, values), dim=2)
    for at in (first, again):
        symbols.scatter_(1, at[..., None].expand(-1, -1, 2), pairs)
    return symbols.view(count, 2 * slots), 2 * again, 2 * (again - first)


def answers(model: Decoder, symbols: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of the values at the questions, [count, KEYS, VALUES], and the right ones, [count, KEYS]."""
    logits = model(symbols)[..., KEYS : KEYS + VALUES]
    picked = logits.gather(1, asked[..., None].expand(-1, -1, VALUES))
    return picked, symbols.gather(1, asked + 1) - KEYS


def window_of_same_budget(length: int, local: str, every: str) -> int:
    """The tokens of a window with at least as many (query, key) pairs at `length` as S2 has."""
    pattern = sparsec.load(HERE / "s2.sparse").pattern("s2", local=local, every=every)
    pairs = int(pattern.mask(length, length, heads=HEADS, kv_heads=HEADS).sum()) / HEADS
    window = 1
    while window * length - window * (window - 1) / 2 < pairs:
        window += 1
    return window


def model_of(pattern: Layer) -> Decoder:
    """Two layers without positions: what they look for is a key, wherever it is."""
    return Decoder(VOCABULARY, 64, HEADS, [pattern, pattern], embedding_std=1.0, smear=True)


def train(name: str, model: Decoder, options: argparse.Namespace) -> float:
    """Trains on lengths that double up to options.length when nine in ten keys are found, or in time; gives seconds."""
    started = time.perf_counter()
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.rate, betas=(0.9, 0.98), weight_decay=0.01)
    generator = torch.Generator().manual_seed(1)
    length, doublings = 4 * KEYS, (options.length // (4 * KEYS)).bit_length() - 1
    with progress_bar(options.steps) as show:
        for step in range(options.steps):
            along = step / options.steps
            due = 4 * KEYS << max(0, math.ceil((2 * along - 1) * doublings))
            length = min(max(length, due), options.length)
            symbols, asked, _ = sequences(max(1, options.tokens // length), length, generator)
            for group in optimiser.param_groups:
                group["lr"] = options.rate * min(1, (step + 1) / 50, 2 * math.cos(math.pi / 2 * along) + 0.02)
            logits, right = answers(model, symbols, asked)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), right.flatten())
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            found = (logits.argmax(dim=2) == right).float().mean().item()
            show(step + 1, f"{name} at {length} tokens: loss {loss.item():.3f}, found {found:.0%}")
            if found >= 0.9:
                length = min(2 * length, options.length)
            if options.trace and step % options.trace == 0:
                print(
                    name,
                    step,
                    length,
                    f"{loss.item():.3f} {found:.3f} {time.perf_counter() - started:.0f} s",
                    flush=True,
                )
    return time.perf_counter() - started


@torch.no_grad()
def found_by_distance(model: Decoder, edges: Sequence[int], options: argparse.Namespace) -> list[tuple[int, int]]:
    """(found, asked) for each [edge, next edge) of distances."""
    counts = [(0, 0)] * (len(edges) - 1)
    generator = torch.Generator().manual_seed(2)
    for _ in range(options.rounds):
        symbols, asked, distance = sequences(8, options.length, generator)
        logits, right = answers(model, symbols, asked)
        correct = logits.argmax(dim=2) == right
        for n, (start, stop) in enumerate(pairwise(edges)):
            inside = (distance >= start) & (distance < stop)
            found, total = counts[n]
            counts[n] = (found + int((correct & inside).sum()), total + int(inside.sum()))
    return counts


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=2048, help="tokens of the context; training starts at 128")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--tokens", type=int, default=8192, help="tokens a step")
    parser.add_argument("--local", default="1b", help="S2's nearest blocks")
    parser.add_argument("--every", default="4b", help="S2's stride")
    parser.add_argument("--rate", type=float, default=1e-2)
    parser.add_argument("--rounds", type=int, default=16, help="of 8 sequences each, to test with")
    parser.add_argument("--trace", type=int, default=0, help="print the loss every so many steps")
    parser.add_argument("--models", default="s2,window")
    parser.add_argument("--quick", action="store_true", help="a few steps on short sequences")
    return parser


def main() -> None:
    options = arguments().parse_args()
    if options.quick:
        options.length, options.steps, options.tokens, options.rounds = 512, 8, 1024, 2
    window = window_of_same_budget(options.length, options.local, options.every)
    layers = {
        "s2": Layer(str(HERE / "s2.sparse"), "s2", {"local": options.local, "every": options.every}, False),
        "window": Layer(f"pattern near {{ causal  attend window({window}) }}", rotary=False),
    }
    print(
        f"{KEYS} keys in {options.length} tokens, {VALUES} values (chance {1 / VALUES:.1%}); {HEADS} heads, 2 layers; "
        f"S2 with {options.local} local and one block in {options.every[:-1]} has the pairs of a window of {window}\n"
    )
    edges = [0, *(options.length >> shift for shift in (5, 4, 3, 2, 1)), options.length]
    results = {}
    for name in options.models.split(","):
        model = model_of(layers[name])
        seconds = train(name, model, options)
        print(f"{name}: {options.steps} steps in {seconds:.0f} s", flush=True)
        results[name] = found_by_distance(model, edges, options)
    print("\n" + "".join(f"{cell:>16}" for cell in ("distance", "asked", *results)))
    first = next(iter(results.values()))
    for n, (_, asked) in enumerate(first):
        cells = (f"{found[n][0] / max(found[n][1], 1):.1%}" for found in results.values())
        print("".join(f"{cell:>16}" for cell in (f"{edges[n]} to {edges[n + 1] - 1}", str(asked), *cells)))
    whole = (f"{sum(f for f, _ in found) / sum(a for _, a in found):.1%}" for found in results.values())
    print("".join(f"{cell:>16}" for cell in ("all", str(sum(asked for _, asked in first)), *whole)))


if __name__ == "__main__":
    main()
