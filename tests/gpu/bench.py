"""Times of the triton target beside SDPA and FlexAttention, by `sparsec bench`: JSON into a folder, a short table out.

Every figure of a row comes from interleaved runs of one process. Run by tests/gpu/run.sh.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SECONDS, LAST_SECONDS = 270.0, 310.0
"""Rows that would start later than the first are left out, and named; one that still runs at the second is ended."""

SOURCES = {
    "dense": "pattern dense { causal attend full }",
    "window": "pattern window { causal attend sink(64) | window(1k) }",
    "s2": "pattern s2 { block 64 causal attend window(16b) | stride(16b, phase = -g) }",
}


@dataclass(frozen=True)
class Row:
    """Lengths that one process times: the forward pass; with `backward` both; with `decode` one token over a cache."""

    pattern: str
    lengths: tuple[int, ...]
    backward: bool = False
    decode: bool = False
    batch: int = 1
    head_dim: int = 128
    dtype: str = "bfloat16"
    against: str = "sdpa,flex"


ROWS = (
    Row("dense", (8192, 32768)),
    Row("s2", (8192, 32768)),
    Row("s2", (8192, 32768), backward=True),
    Row("dense", (8192, 32768), backward=True),
    Row("s2", (131072,), decode=True),
    Row("s2", (131072,), decode=True, batch=16, against="sdpa"),
    Row("window", (8192, 32768)),
    Row("s2", (131072,), against="sdpa"),
    Row("window", (131072,), against="sdpa"),
    Row("s2", (32768,), head_dim=64),
)


def run(row: Row, file: Path, seconds: float) -> dict[str, object]:
    """One `sparsec bench`, its JSON; a failure as {"error": ...}."""
    command = [sys.executable, "-m", "sparsec", "bench", str(file), "--device", "cuda", "--dtype", row.dtype]
    command += ["--heads", "32", "--kv-heads", "8", "--head-dim", str(row.head_dim)]
    command += ["--against", row.against, "--repeats", "7", "--format", "json"]
    command += [word for length in row.lengths for word in ("--seq-len", str(length))]
    command += ["--batch", str(row.batch)]
    command += ["--backward"] if row.backward else ["--decode"] if row.decode else []
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"took over {seconds:.0f} s"}
    if done.returncode != 0:
        return {"error": "\n".join(done.stderr.strip().splitlines()[-5:])}
    found: dict[str, object] = json.loads(done.stdout)
    return found


def main() -> int:
    import torch
    import triton

    if not torch.cuda.is_available():
        print("no GPU: nothing to time")
        return 0
    started, results = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        for row in ROWS:
            passed = time.monotonic() - started
            if passed > SECONDS:
                results.append({"row": vars(row), "left_out": "out of time"})
                continue
            file = Path(folder) / f"{row.pattern}.sparse"
            file.write_text(SOURCES[row.pattern] + "\n", encoding="utf-8")
            results.append({"row": vars(row), **run(row, file, min(150.0, LAST_SECONDS - passed))})
    about = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": triton.__version__}
    out = Path(os.environ.get("OUT", ROOT / "tests" / "bench" / "results"))
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu.json").write_text(json.dumps({**about, "rows": results}, indent=2) + "\n", encoding="utf-8")
    table(about, results)
    return int(any("error" in result for result in results))


def table(about: dict[str, str], results: list[dict[str, object]]) -> None:
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    head = f"{'pattern':8} {'passes':8} {'tokens':>7} {'D':>4} {'ms':>9} {'TFLOP/s':>8}"
    print(f"{head} {'x sdpa':>7} {'x flex':>7} {'of ideal':>8}")
    for result in results:
        row = result["row"]
        assert isinstance(row, dict)
        passes = "fwd+bwd" if row["backward"] else f"decode{row['batch']}" if row["decode"] else "fwd"
        start = f"{row['pattern']:8} {passes:8}"
        measured = result.get("results")
        if not isinstance(measured, list):
            why = str(result.get("error", result.get("left_out")))
            print(start, row["lengths"], why.replace("\n", " | ")[:160])
            continue
        for one in measured:
            figures = decoded(one) if row["decode"] else line(one, row["backward"])
            print(f"{start} {one['seq_len']:7} {row['head_dim']:4} {figures}")


def decoded(one: dict[str, Any]) -> str:
    """Milliseconds, ratios, and the live bytes' rate as a share of a copy's."""
    ratios = [f"{one['speed_up'][peer]:.2f}" if peer in one["speed_up"] else "-" for peer in ("sdpa", "flex")]
    ideal = one["speed_up"].get("sdpa", 0.0) / one["ideal_speed_up"]
    share = f"{one['share_of_copy_bandwidth']:.2f} of copy"
    return f"{one['ms']['sparsec']:9.3f} {'-':>8} {ratios[0]:>7} {ratios[1]:>7} {ideal:8.2f}  {share}"


def line(one: dict[str, Any], backward: bool) -> str:
    """Milliseconds, rate and ratios of one length."""
    kind = "both_" if backward else ""
    ms, faster = one["both_ms"]["sparsec"] if backward else one["ms"], one[f"{kind}speed_up"]
    rate = "-" if backward else f"{one['useful_gflops'] / 1e3:.1f}"
    ratios = [f"{faster[peer]:.2f}" if peer in faster else "-" for peer in ("sdpa", "flex")]
    ideal = f"{faster['sdpa'] / one['ideal_speed_up']:.2f}" if "sdpa" in faster else "-"
    return f"{ms:9.3f} {rate:>8} {ratios[0]:>7} {ratios[1]:>7} {ideal:>8}"


if __name__ == "__main__":
    sys.exit(main())
