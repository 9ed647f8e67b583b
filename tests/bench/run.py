"""Times the patterns of `figures.sparse` with `sparsec bench` and writes results/NAME_*.json.

    python tests/bench/run.py cpu_2core --machine "two cores of an Intel Xeon with AVX-512"

Each figure is a ratio against baselines in the same run; leave the machine alone meanwhile (ten minutes on two cores).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
FORWARD, BACKWARD = ("--seq-len", "8192"), ("--seq-len", "4096", "--backward")
CACHED = ("--seq-len", "32768", "--against", "sdpa")
IN_BFLOAT16 = ("--dtype", "bfloat16", "--against", "sdpa")
SHARED = ("--heads", "8", "--kv-heads", "2")
RUNS: dict[str, tuple[str, ...]] = {
    "dense": ("dense", *FORWARD),
    "sink_window": ("sink_window", *FORWARD),
    "s2": ("s2", *FORWARD),
    "dense_bfloat16": ("dense", *FORWARD, *IN_BFLOAT16),
    "sink_window_bfloat16": ("sink_window", *FORWARD, *IN_BFLOAT16),
    "s2_bfloat16": ("s2", *FORWARD, *IN_BFLOAT16),
    "dense_bfloat16_backward": ("dense", *BACKWARD, *IN_BFLOAT16),
    "dense_backward": ("dense", *BACKWARD, "--against", "sdpa"),
    "s2_backward": ("s2", *BACKWARD, "--against", "sdpa"),
    "s2_16_decode": ("s2_16", *CACHED, "--decode", "--repeats", "31"),
    "dense_decode_int8": ("dense", "--seq-len", "32768", *SHARED, "--decode", "--kv-dtype", "int8", "--repeats", "31"),
    "kept_decode": ("kept", "--seq-len", "32768", "--decode", "--keep", "0.1", "--repeats", "121"),
    "s2_16_prefill_chunk": ("s2_16", *CACHED, "--prefill-chunk", "512"),
    "tiles": ("tiles", *FORWARD, *SHARED, "--inputs", "random:density=0.1", "--against", "sdpa,flex64"),
    "keys": ("keys", *FORWARD, *SHARED, "--inputs", "random:count=512", "--against", "sdpa,masked"),
    "paged_decode": (
        *("dense", "--seq-len", "32768", *SHARED, "--decode", "--batch", "16", "--repeats", "15"),
        *("--pages", "16", "--pages", "64", "--pages", "256"),
    ),
    "pages_decode": (
        *("pages", "--seq-len", "32768", *SHARED, "--inputs", "random:count=127", "--decode"),
        *("--against", "sdpa,window", "--repeats", "401"),
    ),
}

SHOWN = ("ms", "speed_up", "both_ms", "both_speed_up", "cache_ms", "pages", "pages_by_head")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="begins the files' names")
    parser.add_argument("--machine", required=True, help="as the files and the README describe it")
    parser.add_argument("--only", choices=RUNS, action="append", help="may be repeated")
    given = parser.parse_args()
    for run in given.only or RUNS:
        pattern, *options = RUNS[run]
        bench = ["bench", str(HERE / "figures.sparse"), "--pattern", pattern, *options, "--format", "json"]
        done = subprocess.run([sys.executable, "-m", "sparsec", *bench], check=True, capture_output=True, text=True)
        figures = {"cpu": given.machine, "torch": version("torch")} | json.loads(done.stdout)
        (HERE / "results" / f"{given.name}_{run}.json").write_text(json.dumps(figures, indent=2) + "\n")
        for each in figures["results"]:
            print(run, json.dumps({key: value for key, value in each.items() if key in SHOWN}), flush=True)


if __name__ == "__main__":
    main()
