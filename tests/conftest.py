"""Options shared by all tests."""

from __future__ import annotations

import os
import sys

import pytest

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # threads that wait for each other's cores spin there
    assert "torch" not in sys.modules, "the number of threads is read when torch is loaded"
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the files that golden tests compare with")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))
