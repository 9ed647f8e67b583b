"""The examples that train and generate run from end to end, on a few steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sparsec.integrations.transformers.batching import OLDEST, has_allocators

pytestmark = pytest.mark.kernels

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


def test_train_lm_learns_and_measures_each_model(tmp_path: Path) -> None:
    svg = tmp_path / "curves.svg"
    rows = [line.split() for line in example("train_lm.py", "--models", "dense,s2", "--svg", str(svg)).splitlines()]
    start, last = ([float(loss) for loss in row[1:]] for step in ("1", "4") for row in rows if row[:1] == [step])
    assert len(start) == 2 and all(later < earlier for later, earlier in zip(last, start, strict=True))

    ((_, dense, _, _), (_, s2, _, _)) = (row for row in rows if row[:1] in (["dense"], ["s2"]))
    # Of 8 blocks of 64: half the diagonal, the block before, and on average over the heads a quarter of the others.
    kept = 8 * (64 * 65 / 2) + 7 * 64**2 + 21 * 64**2 / 4
    assert dense == "100.0%"
    assert s2 == f"{kept / (512 * 513 / 2):.1%}"

    costs = [row for row in rows if row[:1] == ["512"]]
    assert [row[1] for row in costs] == ["dense", "s2"]
    assert all(float(number.rstrip("x")) > 0 for row in costs for number in row[2:])
    assert len(ElementTree.parse(svg).findall("{*}polyline")) == 2


def test_the_peak_memory_of_a_step_is_not_that_of_the_process_that_asks() -> None:
    held = b"x" * 1_000_000_000
    assert 0 < float(example("train_lm.py", "--memory-of", "dense")) < len(held) / 1e6 / 2


def test_generation_over_an_evicting_cache_writes_the_tokens_of_a_dense_one() -> None:
    lines = example("generate.py").splitlines()
    (ours, dense) = (float(line.split("cache")[1].split()[-4]) for line in lines if line.startswith(("evict", "dense")))
    assert ours < dense and "the same in both runs" in lines[-1]


def test_trees_of_drafts_write_the_tokens_of_greedy_decoding() -> None:
    figures, verdict = example("tree.py").splitlines()
    assert verdict == "the same as by greedy decoding"
    assert float(figures.split(": ")[1].split()[0]) > 1.5, "drafts are taken"


@pytest.mark.skipif(not has_allocators(), reason=f"continuous batching needs transformers {OLDEST}")
def test_requests_in_batches_hold_fewer_blocks_and_get_the_same_tokens() -> None:
    _, *rows, verdict = example("batches.py").splitlines()
    assert verdict == "the tokens are those of SDPA, and of generate()"
    own, full, stream = (int(row[24:].split()[0]) for row in rows)
    assert own == full > stream
