"""What the quick tier may not do fails there, and there alone."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def test_a_process_fails_a_quick_test() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"mark `kernels`: subprocess\.Popen"):
        subprocess.run([sys.executable, "-c", ""], check=True)
    with pytest.raises(pytest.fail.Exception, match=r"mark `kernels`: os\.fork"):
        os.fork()


def test_a_built_kernel_fails_a_quick_test() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"built/kernel\.so"):
        ctypes.CDLL("built/kernel.so")


@pytest.mark.kernels
def test_the_other_tiers_start_processes() -> None:
    assert subprocess.run([sys.executable, "-c", ""], check=True).returncode == 0


def test_every_folder_of_tests_has_a_tier(request: pytest.FixtureRequest) -> None:
    folders = {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")}
    tier_of = request.config.pluginmanager.get_plugin("quick rule").tier_of
    assert folders == set(tier_of)
    project = tomllib.loads((TESTS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    markers = {line.partition(":")[0] for line in project["tool"]["pytest"]["ini_options"]["markers"]}
    assert markers == set(tier_of.values())
