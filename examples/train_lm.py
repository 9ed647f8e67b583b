"""Trains one small decoder of bytes three times: with dense attention, S2 and LongGen, the same seed and the same data.

The text is Python's own prose: the help topics in `pydoc_data` and the docstrings of the standard library, about 2 MB.
Every step trains the three models in turn, so that a busy machine slows all of them alike.

    python examples/train_lm.py                  prints the curves as a table and writes train_lm.svg
    python examples/train_lm.py --quick          some seconds: shows that it runs
    python examples/train_lm.py --device cuda --context 16384 --steps 500 --local 16b --every 16b
"""

from __future__ import annotations

import argparse
import ast
import math
import pydoc_data.topics
import resource
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from lm import Decoder, Layer, progress_bar
from torch import Tensor

HERE = Path(__file__).parent
MODELS = ("dense", "s2", "longgen")
COLOURS = {"dense": "#444444", "s2": "#c2410c", "longgen": "#1d4ed8"}
HELD_OUT_EVERY = 20


def prose() -> bytes:
    """English about Python, UTF-8: help topics, then the docstrings of at least 80 characters, files in order."""
    library = Path(sysconfig.get_paths()["stdlib"])
    texts = [text for _, text in sorted(pydoc_data.topics.topics.items())]
    for path in sorted(library.rglob("*.py")):
        if {"site-packages", "dist-packages", "test", "tests", "idle_test"} & set(path.parts):
            continue
        try:
            tree = ast.parse(path.read_text())
        except (SyntaxError, ValueError):  # test data of lib2to3 is broken on purpose
            continue
        texts += docstrings(tree)
    return "\n\n".join(texts).encode()


def docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None and len(text) >= 80:
                yield text


def layers_of(name: str, depth: int, local: str, every: str) -> list[Layer]:
    s2 = Layer(str(HERE / "s2.sparse"), "s2", {"local": local, "every": every})
    dense = Layer(str(HERE / "longgen.sparse"), "longgen_full")
    blocks = Layer(str(HERE / "longgen.sparse"), "longgen_blocks", {"local": local, "every": every})
    match name:
        case "dense":
            return [dense] * depth
        case "s2":
            return [s2] * depth
        case _:  # full attention in the middle third, as the model of longgen.sparse has it
            return [dense if depth // 3 <= layer < 2 * depth // 3 else blocks for layer in range(depth)]


class Training:
    """A model, its optimiser, and what its steps took and gave."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        layers = layers_of(name, options.layers, options.local, options.every)
        self.name, self.options, self.device = name, options, options.device
        self.model = Decoder(
            256,
            options.embed_dim,
            options.heads,
            layers,
            head_dim=options.head_dim,
            seed=options.seed,
            device=options.device,
        )
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=options.rate, betas=(0.9, 0.95))
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def loss(self, windows: Tensor) -> Tensor:
        """Mean nats a byte of windows [B, context + 1]."""
        windows = windows.to(self.device).long()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device != "cpu"):
            logits = self.model(windows[:, :-1])
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())

    def step(self, windows: Tensor) -> None:
        started = time.perf_counter()
        done, steps = len(self.losses), self.options.steps
        warm, along = min(1, (done + 1) / (0.1 * steps)), done / steps
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.rate * warm * (0.55 + 0.45 * math.cos(math.pi * along))
        loss = self.loss(windows)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.losses.append(loss.item())
        self.seconds.append(time.perf_counter() - started)

    @torch.no_grad()
    def held_out(self, windows: Tensor) -> float:
        return statistics.fmean(self.loss(window[None]).item() for window in windows)

    @property
    def step_seconds(self) -> float:
        return statistics.median(self.seconds[1:] or self.seconds)


def split(text: bytes, context: int) -> tuple[Tensor, Tensor]:
    """Bytes to train on, and windows [W, context + 1] that are held out, from all over the text."""
    data = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    windows = data[: len(data) // (context + 1) * (context + 1)].view(-1, context + 1)
    kept = torch.arange(len(windows)) % HELD_OUT_EVERY != HELD_OUT_EVERY // 2
    return windows[kept].flatten(), windows[~kept]


def peak_megabytes(name: str, arguments: Sequence[str]) -> float:
    """Peak memory of two steps in a process of their own, and on a GPU its allocations alone."""
    command = [sys.executable, __file__, *arguments, "--memory-of", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measured_megabytes(options: argparse.Namespace) -> float:
    training = Training(options.memory_of, options)
    for _ in range(2):
        training.step(torch.zeros((options.batch, options.context + 1), dtype=torch.uint8))
    if options.device != "cpu":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)
    )


def curves(losses: dict[str, list[float]], intervals: int) -> tuple[list[int], dict[str, list[float]]]:
    """The mean loss of each of up to `intervals` equal runs of steps, and the last step of each."""
    steps = len(next(iter(losses.values())))
    ends = sorted({steps * (n + 1) // intervals for n in range(intervals)} - {0})
    spans = list(zip([0, *ends], ends, strict=False))
    return ends, {name: [statistics.fmean(each[a:b]) for a, b in spans] for name, each in losses.items()}


def picture(ends: list[int], lines: dict[str, list[float]], title: str) -> str:
    """The curves as SVG text."""
    width, height, left, top, right, bottom = 640, 360, 52, 36, 16, 40
    values = [value for line in lines.values() for value in line]
    low, high = math.floor(min(values) * 5) / 5, math.ceil(max(values) * 5) / 5

    def x(step: float) -> float:
        return left + (width - left - right) * step / ends[-1]

    def y(loss: float) -> float:
        return top + (height - top - bottom) * (high - loss) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{left}" y="20" font-size="13">{title}</text>',
    ]
    ticks = round((high - low) * 5)
    for n in range(0, ticks + 1, max(1, ticks // 8)):
        at = low + n / 5
        parts.append(f'<path d="M{left} {y(at):.1f}H{width - right}" stroke="#dddddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y(at) + 4:.1f}" text-anchor="end">{at:.1f}</text>')
    for n in range(5):
        at = ends[-1] * n / 4
        parts.append(f'<text x="{x(at):.1f}" y="{height - bottom + 18}" text-anchor="middle">{at:.0f}</text>')
    parts.append(f'<text x="{(left + width) / 2:.0f}" y="{height - 6}" text-anchor="middle">step</text>')
    for n, (name, line) in enumerate(lines.items()):
        points = " ".join(f"{x(end):.1f},{y(value):.1f}" for end, value in zip(ends, line, strict=True))
        dashes = f' stroke-dasharray="{3 * n} {2 * n}"' if n else ""
        colour = COLOURS[name]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        parts.append(f'<text x="{width - right - 70}" y="{top + 18 * (n + 1)}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="any of dense,s2,longgen")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--context", type=int, default=4096, help="bytes a window")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--embed-dim", type=int, default=128)
    parser.add_argument("--local", default="4b", help="nearest blocks of 64 bytes that S2 and LongGen keep")
    parser.add_argument("--every", default="4b", help="of the rest, one block in so many")
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--windows", type=int, default=8, help="held-out windows")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--svg", type=Path, default=Path("train_lm.svg"))
    parser.add_argument("--quick", action="store_true", help="a few steps of a tiny model")
    parser.add_argument("--memory-of", choices=MODELS, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    options = arguments().parse_args()
    if options.quick:
        options.steps, options.context, options.layers, options.embed_dim, options.windows = 4, 512, 3, 64, 2
    if options.memory_of:
        print(measured_megabytes(options))
        return
    text = prose()
    data, held_out = split(text, options.context)
    held_out = held_out[:: max(1, len(held_out) // options.windows)][: options.windows]
    print(f"{len(text) / 1e6:.2f} MB of prose; {len(data) / 1e6:.2f} MB to train on, {held_out.numel()} bytes held out")
    trainings = [Training(name, options) for name in options.models.split(",")]
    size = sum(each.numel() for each in trainings[0].model.parameters())
    print(
        f"{size / 1e6:.2f} M parameters, {options.layers} layers, {options.heads} heads of {options.head_dim}, context "
        f"{options.context}, {options.batch} windows a step, {torch.get_num_threads()} threads, {options.device}\n"
    )
    generator = torch.Generator().manual_seed(options.seed)
    with progress_bar(options.steps) as show:
        for step in range(options.steps):
            starts = torch.randint(len(data) - options.context, (options.batch,), generator=generator)
            windows = torch.stack([data[start : start + options.context + 1] for start in starts.tolist()])
            for training in trainings:
                training.step(windows)
            show(step + 1, "  ".join(f"{each.name} {each.losses[-1]:.3f}" for each in trainings))
    report(trainings, held_out, options)


def report(trainings: list[Training], held_out: Tensor, options: argparse.Namespace) -> None:
    ends, lines = curves({each.name: each.losses for each in trainings}, 12)
    rows = [[str(end), *(f"{lines[each.name][n]:.3f}" for each in trainings)] for n, end in enumerate(ends)]
    print("Training loss, nats a byte, mean since the row before\n")
    print(table(["step", *lines], rows) + "\n")
    first = trainings[0]
    losses = {each.name: each.held_out(held_out) for each in trainings}
    rows = [
        [
            each.name,
            f"{losses[each.name]:.4f}",
            f"{100 * (losses[each.name] / losses[first.name] - 1):+.2f}%",
            f"{each.step_seconds * 1e3:.0f}",
            f"{first.step_seconds / each.step_seconds:.2f}x",
            f"{options.batch * options.context / each.step_seconds:.0f}",
            f"{peak_megabytes(each.name, sys.argv[1:]):.0f}",
        ]
        for each in trainings
    ]
    head = ["model", "held-out loss", f"vs {first.name}", "ms a step", "speed-up", "bytes/s", "peak MB"]
    print(table(head, rows))
    title = f"Training loss (nats a byte), context {options.context}"
    options.svg.write_text(picture(ends, lines, title))
    print(f"\nwrote {options.svg}")


if __name__ == "__main__":
    main()
