"""The training examples run from end to end, on a few steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def example(name: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / name), "--quick", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_needle_asks_at_every_distance() -> None:
    rows = [line.split() for line in example("needle.py").splitlines()]
    asked = [int(row[3]) for row in rows if row[1:2] == ["to"]]
    (whole,) = (int(row[1]) for row in rows if row[:1] == ["all"])
    assert sum(asked) == whole == 2 * 8 * 32
