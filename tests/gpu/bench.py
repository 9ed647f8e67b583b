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

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300.0
"""Rows that would start later than this are left out, and named."""

SOURCES = {
    "dense": "pattern dense { causal attend full }",
    "window": "pattern window { causal attend sink(64) | window(1k) }",
    "s2": "pattern s2 { block 64 causal attend window(16b) | stride(16b, phase = -g) }",
}


@dataclass(frozen=True)
class Row:
    pattern: str
    length: int
    head_dim: int = 128
    dtype: str = "bfloat16"
    against: str = "sdpa,flex"


ROWS = (
    Row("dense", 8192),
    Row("s2", 32768),
    Row("window", 32768),
    Row("dense", 32768),
    Row("s2", 131072, against="sdpa"),
    Row("window", 131072, against="sdpa"),
    Row("s2", 8192),
    Row("window", 8192),
    Row("s2", 32768, head_dim=64),
)


def run(row: Row, file: Path) -> dict[str, object]:
    """One `sparsec bench`, its JSON; a failure as {"error": ...}."""
    command = [sys.executable, "-m", "sparsec", "bench", str(file), "--seq-len", str(row.length), "--device", "cuda"]
    command += ["--heads", "32", "--kv-heads", "8", "--head-dim", str(row.head_dim), "--dtype", row.dtype]
    command += ["--against", row.against, "--repeats", "7", "--format", "json"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    except subprocess.TimeoutExpired:
        return {"error": "took over 150 s"}
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
            if time.monotonic() - started > SECONDS:
                results.append({"row": vars(row), "error": "left out: out of time"})
                continue
            file = Path(folder) / f"{row.pattern}.sparse"
            file.write_text(SOURCES[row.pattern] + "\n", encoding="utf-8")
            results.append({"row": vars(row), **run(row, file)})
    about = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": triton.__version__}
    out = Path(os.environ.get("OUT", ROOT / "tests" / "bench" / "results"))
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu_forward.json").write_text(json.dumps({**about, "rows": results}, indent=2) + "\n", encoding="utf-8")
    table(about, results)
    return int(any("error" in result for result in results))


def table(about: dict[str, str], results: list[dict[str, object]]) -> None:
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{'pattern':8} {'tokens':>7} {'D':>4} {'ms':>9} {'TFLOP/s':>8} {'x sdpa':>7} {'x flex':>7} {'of ideal':>8}")
    for result in results:
        row = result["row"]
        assert isinstance(row, dict)
        start = f"{row['pattern']:8} {row['length']:7} {row['head_dim']:4}"
        measured = result.get("results")
        if not isinstance(measured, list):
            print(start, str(result.get("error")).replace("\n", " | ")[:160])
            continue
        (one,) = measured
        ratios = [
            f"{one['speed_up'][peer]:7.2f}" if peer in one["speed_up"] else "      -" for peer in ("sdpa", "flex")
        ]
        ideal = one["achieved_over_ideal"]
        share = f"{ideal:8.2f}" if ideal is not None else "       -"
        print(f"{start} {one['ms']:9.3f} {one['useful_gflops'] / 1e3:8.1f} {' '.join(ratios)} {share}")


if __name__ == "__main__":
    sys.exit(main())
