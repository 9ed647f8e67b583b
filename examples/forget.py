"""Caches that forget on purpose: how many facts of a long prompt a model still finds, by what its cache keeps.

A small Llama, trained here with dense attention (see `facts.py`), reads prompts of facts and answers questions about
them, one new token each. FastGen profiles a few prompts and gives each KV group a policy; SnapKV and AdaKV score the
keys when a prompt ends; streaming heads see the first and the latest keys. Bytes are those of keys and values, and of
what says which these are, after the last answer.

    python examples/forget.py                    trains, prints a table, writes forget.svg: 8 minutes at most
    python examples/forget.py --quick            shows that it runs
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from compress.snapkv import score as snapkv
from curves import table, trade
from facts import ASK, CLOSE, FIRST_LETTER, FIRST_VALUE, OPEN, START, Facts, facts, llama, train
from lm import progress_bar
from torch import Tensor

from sparsec.integrations.transformers import adaptive, apply, compress, new_cache, profile, remove

HERE = Path(__file__).parent
DENSE = "pattern dense { causal attend full }"
STREAMING = "param first = 4 param latest = 64 pattern streaming { causal attend sink(first) | window(latest) }"
RECOVERIES = (1.0, 0.95, 0.9, 0.6)
SHARES = (0.4, 0.2, 0.1, 0.05)
FIRST = 4
"""Keys that streaming heads see for ever."""

Method = Callable[[Any], None]
"""Makes a model attend by a method."""


@dataclass(frozen=True, slots=True)
class Result:
    """The values that a model answered, [prompts, questions] of each batch, and the bytes of a prompt's cache."""

    answers: tuple[Tensor, ...]
    nbytes: float

    def found(self, batches: Sequence[Facts]) -> float:
        pairs = zip(self.answers, batches, strict=True)
        return torch.cat([(answers == of.values_again).flatten() for answers, of in pairs]).float().mean().item()


@torch.no_grad()
def answer(model: Any, batches: Sequence[Facts]) -> Result:
    """Reads each batch's prompts at once, then asks question by question."""
    answers, nbytes = [], 0
    for of in batches:
        cache = new_cache(model, of.prompt.shape[1] + of.again.shape[1])
        model(of.prompt, past_key_values=cache, use_cache=True)
        logits = [model(each, past_key_values=cache, use_cache=True).logits[:, -1] for each in of.again.split(1, 1)]
        answers.append(torch.stack(logits, 1)[..., FIRST_VALUE:FIRST_LETTER].argmax(-1))
        nbytes += cache.nbytes
    return Result(tuple(answers), nbytes / sum(len(of.prompt) for of in batches))


def fastgen(model: Any, recovery: float, calibration: Tensor, target: str | None) -> None:
    tokens = {"special": [START], "punctuation": [ASK, OPEN, CLOSE]}
    apply(model, profile(model, calibration, recovery=recovery, **tokens, target=target), target=target)


def methods(calibration: Tensor, target: str | None = None) -> dict[str, dict[str, Method]]:
    """By name and setting; calibration: prompts that FastGen profiles; target: as for `sparsec.compile`."""
    length, by_snapkv = calibration.shape[1], partial(compress, score=snapkv, target=target)
    streaming = partial(apply, program=STREAMING, target=target)
    return {
        "dense": {"": partial(apply, program=DENSE, target=target)},
        "FastGen": {
            f"recovery {each}": partial(fastgen, recovery=each, calibration=calibration, target=target)
            for each in RECOVERIES
        },
        "SnapKV": {f"keep {each:.0%}": partial(by_snapkv, keep=each) for each in SHARES},
        "AdaKV": {f"keep {each:.0%}": partial(by_snapkv, keep=adaptive(each)) for each in SHARES},
        "streaming": {
            f"{FIRST} + {latest}": partial(streaming, params={"first": FIRST, "latest": latest})
            for latest in (round(each * length) - FIRST for each in SHARES)
        },
    }


def measured(
    model: Any, batches: Sequence[Facts], wanted: dict[str, dict[str, Method]]
) -> dict[str, dict[str, Result]]:
    results: dict[str, dict[str, Result]] = {name: {} for name in wanted}
    todo = [(name, setting, method) for name, each in wanted.items() for setting, method in each.items()]
    with progress_bar(len(todo)) as show:
        for done, (name, setting, method) in enumerate(todo):
            show(done, f"{name} {setting}")
            method(model)
            results[name][setting] = answer(model, batches)
            remove(model)
    return results


def report(results: dict[str, dict[str, Result]], batches: Sequence[Facts]) -> str:
    dense = results["dense"][""]
    right = dense.found(batches)
    rows = []
    for name, settings in results.items():
        for setting, result in settings.items():
            same = all(torch.equal(a, b) for a, b in zip(result.answers, dense.answers, strict=True))
            found = result.found(batches)
            share, of_dense = result.nbytes / dense.nbytes, found / max(right, 1e-9)
            numbers = (f"{result.nbytes / 1e3:.0f}", f"{share:.1%}", f"{found:.1%}", f"{of_dense:.1%}")
            rows.append((name, setting, *numbers, "yes" if same else "no"))
    return table(
        ("method", "setting", "kB a prompt", "of dense", "found", "of what dense finds", "dense's tokens"), rows
    )


def points(results: dict[str, dict[str, Result]], batches: Sequence[Facts]) -> dict[str, list[tuple[float, float]]]:
    """Of each method (share of dense's bytes, share of values found)."""
    dense = results["dense"][""].nbytes
    return {
        name: [(each.nbytes / dense, each.found(batches)) for each in settings.values()]
        for name, settings in results.items()
    }


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=512, help="symbols of a context, a multiple of 16 from 128 on")
    parser.add_argument("--steps", type=int, default=450, help="of the training")
    parser.add_argument("--tokens", type=int, default=4096, help="symbols a step")
    parser.add_argument("--asked", type=int, default=8, help="questions a prompt")
    parser.add_argument("--batches", type=int, default=16, help="of 8 prompts each, to test with")
    parser.add_argument("--weights", type=Path, help="a file of trained weights: read if it is there, else written")
    parser.add_argument("--quick", action="store_true", help="a few steps on short contexts; writes no picture")
    return parser


def main() -> None:
    options = arguments().parse_args()
    if options.quick:
        options.length, options.steps, options.batches = 128, 4, 1
    model = llama()
    if options.weights is not None and options.weights.exists():
        model.load_state_dict(torch.load(options.weights, weights_only=True))
    else:
        found = train(model, options.length, options.steps, options.tokens)
        print(f"trained {options.steps} steps: {found:.1%} of the values found in the last ones\n", flush=True)
        if options.weights is not None:
            torch.save(model.state_dict(), options.weights)
    model.eval()
    calibration, *batches = (
        facts(8, options.length, options.asked, torch.Generator().manual_seed(seed))
        for seed in range(2, options.batches + 3)
    )
    results = measured(model, batches, methods(calibration.prompt))
    print(report(results, batches))
    if not options.quick:
        title = f"Values found in {calibration.prompt.shape[1]} tokens by what the cache keeps"
        (HERE / "forget.svg").write_text(trade(points(results, batches), title), encoding="utf-8")


if __name__ == "__main__":
    main()
