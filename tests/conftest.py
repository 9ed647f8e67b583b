"""Options shared by all tests, and the tier of each: a marker by its folder, where the test or its module names none.

Invariant: every test has one tier, and a quick one starts no process and loads no built kernel.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from quick_interpreter import make_quick

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # threads that wait for each other's cores spin there
    assert "torch" not in sys.modules, "the number of threads is read when torch is loaded"
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

if os.environ.get("TRITON_INTERPRET") == "1":
    make_quick()

HERE = Path(__file__).parent
TIER = {
    "unit": "quick",
    "golden": "quick",
    "diagnostics": "quick",
    "hostile": "quick",
    "mutants": "quick",
    "numerics": "kernels",
    "guards": "kernels",
    "sweep": "kernels",
    "packaging": "kernels",
    "property": "property",
    "gpu": "gpu",
}
"""Folder -> marker; pyproject.toml says what each marker means."""
TIERS = frozenset(TIER.values())


class QuickRule:
    """Fails a quick test when it starts a process (a compiler, an interpreter) or loads a library that one built."""

    tier_of = TIER

    def __init__(self) -> None:
        self.applies = False
        sys.addaudithook(self.audit)

    def audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.applies:
            return
        loads = event == "ctypes.dlopen" and str(arguments[0]).endswith("kernel.so")
        if loads or event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec", "os.system"):
            pytest.fail(f"expected a quick test, got one to mark `kernels`: {event} {arguments[:2]}")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.applies = item.get_closest_marker("quick") is not None
        try:
            return (yield)
        finally:
            self.applies = False


def tier(item: pytest.Item) -> str:
    """The marker of `item`: its own, or its folder's."""
    own = {mark.name for mark in item.iter_markers()} & TIERS
    if len(own) > 1:
        raise pytest.UsageError(f"{item.nodeid}: expected one tier, got {', '.join(sorted(own))}")
    return own.pop() if own else TIER[item.path.relative_to(HERE).parts[0]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(tier(item))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(QuickRule(), "quick rule")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the files that golden tests compare with")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))
