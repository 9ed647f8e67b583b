"""Files made to be expensive end in diagnostics, or in a checked file, within the limits that the language promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bombs import FILES

pytestmark = pytest.mark.kernels

PROMISED_SECONDS = 2.0
"""For an idle machine; the tests allow a busy one twice as long."""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[float, str]]:
    """The seconds and the outcome of each file, checked in one process that may use no more than 512 MiB."""
    command = [sys.executable, str(Path(__file__).with_name("bombs.py"))]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    return {name: (seconds, said) for name, seconds, said in map(json.loads, run.stdout.splitlines())}


@pytest.mark.parametrize("name", FILES)
def test_bounded(name: str, outcomes: dict[str, tuple[float, str]]) -> None:
    seconds, said = outcomes[name]
    assert "characters" in said, said
    assert seconds < 2 * PROMISED_SECONDS
    assert int(said.split()[0]) < 1 << 17, "what is said of a file has an end too"
