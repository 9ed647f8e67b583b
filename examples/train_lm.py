"""Trains one small decoder of bytes three times: with dense attention, S2 and LongGen, the same seed and the same data.

The text is Python's own prose: the help topics in `pydoc_data` and the docstrings of the standard library, about 2 MB.
Every step trains the three models in turn, so that a busy machine slows all of them alike; so do the steps that are
timed at longer contexts afterwards.

    python examples/train_lm.py                  prints losses, times and memory as tables and writes train_lm.svg
    python examples/train_lm.py --quick          some seconds: shows that it runs
    python examples/train_lm.py --device cuda --context 16384 --heads 16 --every 16b --timed 16384,65536
"""

from __future__ import annotations

import argparse
import ast
import math
import pydoc_data.topics
import statistics
import subprocess
import sys
import sysconfig
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from curves import curves, picture, table
from lm import Decoder, Layer, progress_bar
from torch import Tensor

import sparsec

HERE = Path(__file__).parent
MODELS = ("dense", "s2", "longgen")
HELD_OUT_EVERY = 20
COUNTED_CONTEXT = 8192  # live pairs are counted in a mask of heads x context^2 up to here
QUICK = {"steps": 4, "context": 512, "embed_dim": 64, "windows": 2, "timed": "512", "repeats": 1}


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


def live_share(layers: Sequence[Layer], heads: int, context: int) -> float:
    """The (query, key) pairs that the layers keep, as a share of the causal ones."""
    patterns = [sparsec.load(layer.pattern).pattern(layer.name, **layer.params) for layer in layers]
    live = sum(int(pattern.mask(context, context, heads, heads).sum()) for pattern in patterns)
    return live / (len(layers) * heads * context * (context + 1) / 2)


class Training:
    """A model, its optimiser, and what its steps took and gave."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.layers = layers_of(name, options.layers, options.local, options.every)
        self.name, self.options, self.device = name, options, options.device
        self.model = Decoder(
            256,
            options.embed_dim,
            options.heads,
            self.layers,
            head_dim=options.head_dim,
            smear=True,
            seed=options.seed,
            device=options.device,
        )
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=options.rate, betas=(0.9, 0.95))
        self.losses: list[float] = []

    def loss(self, windows: Tensor) -> Tensor:
        """Mean nats a byte of windows [B, context + 1]."""
        windows = windows.to(self.device).long()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device != "cpu"):
            logits = self.model(windows[:, :-1])
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())

    def step(self, windows: Tensor) -> None:
        """The next step of the schedule: a tenth to warm up, then half a cosine down to a tenth of the rate."""
        done, steps = len(self.losses), self.options.steps
        warm, along = min(1, (done + 1) / (0.1 * steps)), done / steps
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.rate * warm * (0.55 + 0.45 * math.cos(math.pi * along))
        self.losses.append(self.update(windows))

    def update(self, windows: Tensor) -> float:
        loss = self.loss(windows)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return loss.item()  # waits for the device

    @torch.no_grad()
    def held_out(self, windows: Tensor) -> float:
        return statistics.fmean(self.loss(window[None]).item() for window in windows)


def split(text: bytes, context: int) -> tuple[Tensor, Tensor]:
    """Bytes to train on, and windows [W, context + 1] that are held out, from all over the text."""
    data = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    windows = data[: len(data) // (context + 1) * (context + 1)].view(-1, context + 1)
    kept = torch.arange(len(windows)) % HELD_OUT_EVERY != HELD_OUT_EVERY // 2
    return windows[kept].flatten(), windows[~kept]


def drawn(data: Tensor, batch: int, context: int, generator: torch.Generator) -> Tensor:
    """Windows [batch, context + 1] from random places."""
    starts = torch.randint(len(data) - context, (batch,), generator=generator)
    return torch.stack([data[start : start + context + 1] for start in starts.tolist()])


def peak_megabytes(name: str, context: int) -> float:
    """What a step takes at most beyond a process that holds no model, in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name, "--context", str(context)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measured_megabytes(options: argparse.Namespace) -> float:
    """On a GPU what is allocated there; on a CPU resident memory.

    `getrusage` would not do: a process starts with the peak of the one that started it.
    """
    before = resident_megabytes("VmRSS")
    training = Training(options.memory_of, options)
    for context in (128, options.context):  # the first step allocates the optimiser's state
        training.update(torch.zeros((options.batch, context + 1), dtype=torch.uint8))
    if options.device != "cpu":
        return torch.cuda.max_memory_allocated() / 1e6
    return resident_megabytes("VmHWM") - before


def resident_megabytes(field: str) -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="any of dense,s2,longgen")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--context", type=int, default=1024, help="bytes a window")
    parser.add_argument("--timed", default="1024,4096,16384", help="contexts to measure time and memory at")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each model at each context")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--embed-dim", type=int, default=128)
    parser.add_argument("--local", default="2b", help="nearest blocks of 64 bytes that S2 and LongGen keep")
    parser.add_argument("--every", default="4b", help="of the rest, one block in so many")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--windows", type=int, default=64, help="held-out windows")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--svg", type=Path, default=Path("train_lm.svg"))
    parser.add_argument("--quick", action="store_true", help="a few steps of a tiny model")
    parser.add_argument("--memory-of", choices=MODELS, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    parser = arguments()
    if parser.parse_args().quick:
        parser.set_defaults(**QUICK)
    options = parser.parse_args()
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
    train(trainings, data, options)
    report_losses(trainings, held_out, options)
    report_costs(trainings, data, options)


def train(trainings: Sequence[Training], data: Tensor, options: argparse.Namespace) -> None:
    generator = torch.Generator().manual_seed(options.seed)
    with progress_bar(options.steps) as show:
        for step in range(options.steps):
            windows = drawn(data, options.batch, options.context, generator)
            for training in trainings:
                training.step(windows)
            show(step + 1, "  ".join(f"{each.name} {each.losses[-1]:.3f}" for each in trainings))


def report_losses(trainings: Sequence[Training], held_out: Tensor, options: argparse.Namespace) -> None:
    ends, lines = curves({each.name: each.losses for each in trainings}, 12)
    rows = [[str(end), *(f"{lines[each.name][n]:.3f}" for each in trainings)] for n, end in enumerate(ends)]
    print("Training loss, nats a byte, mean since the row before\n")
    print(table(["step", *lines], rows) + "\n")
    losses = {each.name: each.held_out(held_out) for each in trainings}
    first = losses[trainings[0].name]
    rows = []
    for each in trainings:
        counted = options.context <= COUNTED_CONTEXT
        live = f"{live_share(each.layers, options.heads, options.context):.1%}" if counted else ""
        rows.append([each.name, live, f"{losses[each.name]:.4f}", f"{losses[each.name] / first - 1:+.2%}"])
    print(table(["model", "live pairs", "held-out loss", f"vs {trainings[0].name}"], rows))
    ends, lines = curves({each.name: each.losses for each in trainings}, 40)
    options.svg.write_text(picture(ends, lines, f"Training loss (nats a byte), context {options.context}"))
    print(f"\nwrote {options.svg}\n", flush=True)


def report_costs(trainings: Sequence[Training], data: Tensor, options: argparse.Namespace) -> None:
    contexts = [int(context) for context in options.timed.split(",")]
    generator = torch.Generator().manual_seed(options.seed)
    seconds: dict[tuple[int, str], list[float]] = defaultdict(list)
    megabytes: dict[tuple[int, str], float] = {}
    with progress_bar(len(contexts) * len(trainings) * (options.repeats + 1)) as show:
        for context in contexts:
            for _ in range(options.repeats):
                windows = drawn(data, options.batch, context, generator)
                for each in trainings:
                    started = time.perf_counter()
                    each.update(windows)
                    seconds[context, each.name].append(time.perf_counter() - started)
                    show(sum(map(len, seconds.values())) + len(megabytes), f"{each.name}, context {context}")
            for each in trainings:
                megabytes[context, each.name] = peak_megabytes(each.name, context)
                show(sum(map(len, seconds.values())) + len(megabytes), f"{each.name}, context {context}: memory")
    rows = []
    for (context, name), times in seconds.items():
        taken, first = statistics.median(times), statistics.median(seconds[context, trainings[0].name])
        rate, peak = options.batch * context / taken, megabytes[context, name]
        rows.append([str(context), name, f"{taken:.3f}", f"{first / taken:.2f}x", f"{rate:.0f}", f"{peak:.0f}"])
    print(f"Training steps, medians of {options.repeats}\n")
    print(table(["context", "model", "s a step", "speed-up", "bytes/s", "peak MB"], rows))


if __name__ == "__main__":
    main()
