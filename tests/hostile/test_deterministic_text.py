"""The same file gives the same bytes: under any hash seed, from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEEDS = ("0", "1", "2", "31337", "4294967295")


@pytest.mark.kernels
def test_generated_text_is_the_same_under_five_hash_seeds_and_in_two_folders(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("generate_all.py"))]
    outputs = set()
    for number, seed in enumerate(SEEDS):
        folder, examples = (ROOT, "examples") if number % 2 else (tmp_path, str(ROOT / "examples"))
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            [*command, examples], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr[-3000:]
        outputs.add(run.stdout)
    assert len(outputs) == 1
    lines = outputs.pop().splitlines()
    assert sum("backward" in line for line in lines) >= 2 * 20 and sum("cached" in line for line in lines) >= 20
