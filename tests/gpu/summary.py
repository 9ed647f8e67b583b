"""The folder of a day's results -> one short table, the figures that matter most last.

    python tests/gpu/summary.py --out FOLDER

Invariant: a file that is missing or cut short takes its own lines away and no others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from results import read
from step import arguments


def main() -> None:
    out = arguments(__doc__).out
    for name, lines in PARTS.items():
        data = read(out / name)
        try:
            print("\n".join(lines(data)) if data is not None else f"{name}: not there")
        except Exception as error:  # one part's odd data must not cost the others
            print(f"{name}: cannot be shown: {type(error).__name__}: {error}")


def environment(data: dict[str, Any]) -> Iterator[str]:
    packages = data.get("packages", {})
    yield f"{data['card']} ({data['target']}), torch {packages.get('torch')}, triton {packages.get('triton')}"
    if "copy_bytes_per_second" in data:
        copy, product = data["copy_bytes_per_second"] / 1e12, data["bf16_product_flops"] / 1e12
        yield f"copy {copy:.2f} TB/s, bf16 product {product:.0f} TFLOP/s"


def tests(data: dict[str, Any]) -> Iterator[str]:
    counts = Counter(row["outcome"] for row in data["rows"])
    yield f"tests: {', '.join(f'{n} {what}' for what, n in sorted(counts.items()))}"
    for row in data["rows"]:
        if row["outcome"] == "failed":
            last = next(iter(reversed(row["text"].strip().splitlines())), "")
            yield f"  FAILED {row['test']}: {last[:120]}"
    if data["running"]:
        yield f"  not ended: {', '.join(data['running'][:4])} and {max(0, len(data['running']) - 4)} more"


def sweep(data: dict[str, Any]) -> Iterator[str]:
    rows = data["rows"]
    failed = sum(row["error"] is not None for row in rows)
    wrong = [row for row in rows if row["right"] is False]
    yield f"sweep: {len(rows)} of {data.get('planned')} candidates, {failed} failed, {len(wrong)} wrong"
    for row in wrong[:6]:
        yield f"  WRONG {_launch(row)}: error {row.get('largest_error')}, allowed {row.get('allowed_error')}"
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["dtype"], row["kind"], row["head_dim"]), []).append(row)
    for group in groups.values():
        good = [row for row in group if row["right"] and row["ms"] is not None]
        rule = next((row for row in good if row["rule"]), None)
        if good:
            best = min(good, key=lambda row: row["ms"])
            of_rule = f", {rule['ms'] / best['ms']:.2f}x the rule's" if rule else ", the rule failed"
            spills = f", {best['registers']} registers, {best['spill_bytes']} B local"
            yield f"  {_launch(best)}: {best['ms']:.3f} ms{of_rule}{spills}"


def _launch(row: dict[str, Any]) -> str:
    tiles = f"{row['query_tile']}x{row['key_tile']}, {row['warps']} warps, {row['stages']} stages"
    limit = f", maxnreg {row['maxnreg']}" if row["maxnreg"] else ""
    return f"{row['kind']} D{row['head_dim']} {row['dtype']} {tiles}{limit}"


def bench(data: dict[str, Any]) -> Iterator[str]:
    baselines = ("picked", "flash", "cudnn", "flex", "flex64")
    yield (
        f"{'pattern':12}{'passes':10}{'tokens':>7}{'B':>3}{'D':>4}{'ms':>9}{'TFLOP/s':>8}"
        + "".join(f"{'x ' + name:>9}" for name in baselines)
        + f"{'of ideal':>9}{'MHz':>6}{'W':>5}"
    )
    for row in data["rows"]:
        start = f"{row['pattern']:12}{{:10}}{row['length']:>7}{row['batch']:>3}{row['head_dim']:>4}"
        state = row.get("state", {})
        end = f"{state.get('clocks.sm', 0):6.0f}{state.get('power.draw', 0):5.0f}"
        if "error" in row or "left_out" in row:
            yield start.format("decode" if row["decode"] else "train") + f"  {row.get('error', row.get('left_out'))}"
            continue
        wrong = "" if row.get("right", True) else "  WRONG"
        if row["decode"]:
            cells = "".join(_ratio(row["speed_up"].get(name)) for name in baselines)
            share = f"  {row['share_of_copy_bandwidth']:.2f} of copy, eager {row['eager_ms']:.3f} ms"
            yield start.format("decode") + f"{row['ms']['sparsec']:9.4f}{'-':>8}{cells}{'-':>9}{end}{share}{wrong}"
            continue
        for what in ("forward", "both"):
            if what not in row:
                continue
            found = row[what]
            cells = "".join(_ratio(found["speed_up"].get(name)) for name in baselines)
            dense = [found["speed_up"][name] for name in ("flash", "cudnn") if name in found["speed_up"]]
            ideal = f"{min(dense) / row['ideal_speed_up']:9.2f}" if dense else f"{'-':>9}"
            host = f"  host time in {', '.join(found['host_time_in'])}" if found["host_time_in"] else ""
            figure = f"{found['ms']['sparsec']:9.3f}{found['useful_tflops']:8.0f}"
            yield start.format(what) + figure + cells + ideal + end + host + wrong
        for name, why in row["absent"].items():
            yield f"  {name} did not run: {why[:110]}"


def _ratio(value: float | None) -> str:
    return f"{'-':>9}" if value is None else f"{value:9.2f}"


def gluon(data: dict[str, Any]) -> Iterator[str]:
    checked = [row for row in data["rows"] if "check" in row]
    yield f"gluon: {sum(row.get('right') is True for row in checked)} of {len(checked)} checks right"
    for row in checked:
        if row.get("right") is not True:
            yield f"  {row['check']} D{row['head_dim']} {row['dtype']}: {row.get('why') or row.get('error')}"[:160]
    for row in (row for row in data["rows"] if "pattern" in row):
        figures = ", ".join(f"{name} {ms:.3f}" for name, ms in row.get("ms", {}).items())
        yield f"  {row['pattern']} {row['length']} B{row['batch']} D{row['head_dim']}: {figures or row.get('error')} ms"


def counters(data: dict[str, Any]) -> Iterator[str]:
    if "error" in data:
        yield f"ncu: {data['error'][:200]}"
    names = ("registers", "tensor_cycles_share", "memory_share", "warps_share", "issued_share", "stall_barrier")
    for row in data["rows"]:
        figures = ", ".join(f"{name} {row[name]:.4g}" for name in names if name in row)
        yield f"ncu {row['kernel']}: {figures}"


def sanitizers(data: dict[str, Any]) -> Iterator[str]:
    yield "; ".join(f"{tool}: {row['verdict']}" for tool, row in data.items())


PARTS: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
    "environment.json": environment,
    "tests.json": tests,
    "sanitizers.json": sanitizers,
    "ncu.json": counters,
    "gluon.json": gluon,
    "gpu_sweep.json": sweep,
    "gpu_bench.json": bench,
}


if __name__ == "__main__":
    main()
