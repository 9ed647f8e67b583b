"""Records each test's outcome as it comes, where SPARSEC_GPU_RECORD names a file: a run that is cut off has told."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

RECORD = os.environ.get("SPARSEC_GPU_RECORD")


class Recorder:
    def __init__(self, path: Path) -> None:
        from results import Results

        self.results, self.started = Results(path, {"running": []}), time.monotonic()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.results.data["running"].append(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            text = str(report.longrepr)[-2000:] if report.failed else ""
            row = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 2)}
            self.results.add({**row, "at": round(time.monotonic() - self.started, 1), "text": text})

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        if nodeid in self.results.data["running"]:
            self.results.data["running"].remove(nodeid)
        self.results.say()


def pytest_configure(config: pytest.Config) -> None:
    if RECORD and not hasattr(config, "workerinput"):  # one record, by the process that hears of all
        config.pluginmanager.register(Recorder(Path(RECORD)))
