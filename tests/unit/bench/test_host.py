"""`sparsec bench --host`, and what a call from a record costs: by counts, for times depend on the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from sparsec.bench.host import HostFigures, host_table, median_of_each

pytestmark = pytest.mark.kernels

KINDS = ["forward", "forward + backward", "decode", "append"]
MOST_FUNCTIONS = {"forward": 70, "forward + backward": 170, "decode": 85, "append": 160}
"""Python functions that a call may run (append: with the step before it); half of what preparing its launches takes."""


def run(*arguments: str) -> str:
    """In a process of its own: Triton decides at import whether it interprets, and what ran there is of no more use."""
    given = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, *arguments], env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_command_times_every_kind_of_call(tmp_path: Path) -> None:
    file = tmp_path / "p.sparse"
    file.write_text("pattern p { heads 4 kv 2  causal  attend window(64) }")
    command = ["-m", "sparsec", "bench", str(file), "--host", "--head-dim", "16", "--repeats", "1", "--format", "json"]
    results = json.loads(run(*command))["results"]
    assert [each["call"] for each in results] == KINDS
    assert all(each["us"]["sparsec"] > 0 for each in results)
    assert [each["launches"] for each in results] == [
        ["forward_0"],
        ["forward_0", "row_sums", "grad_queries_0", "grad_keys_0"],
        ["decode_0", "store"],
        ["attend_0", "store"],
    ]


def test_a_call_from_a_record_launches_the_same_and_prepares_nothing() -> None:
    found = json.loads(run(str(Path(__file__).with_name("host_calls.py"))))
    assert list(found) == KINDS
    for kind, (launches, unlike, functions) in found.items():
        assert launches and not unlike, kind
        assert functions <= MOST_FUNCTIONS[kind], kind


def test_calls_take_turns() -> None:
    order: list[str] = []
    calls = [(lambda name=name: order.append(f"before {name}"), lambda name=name: order.append(name)) for name in "ab"]
    times = median_of_each(calls, 2)  # type: ignore[arg-type]  # lambdas that bind a default
    assert len(times) == 2 and min(times) >= 0
    kinds = list(dict.fromkeys(pairwise(order)))
    assert ("a", "before b") in kinds and ("b", "before a") in kinds and order[0] == "before a"
    assert order.count("before a") == 2 and order.count("a") == order.count("b")


def test_the_table_says_what_did_not_run() -> None:
    text = host_table([HostFigures("append", {"sparsec": 41.26e-6}, ("attend_0", "store"))])
    assert ["append", "41.3", "-", "attend_0,", "store"] in [line.split() for line in text.splitlines()]
