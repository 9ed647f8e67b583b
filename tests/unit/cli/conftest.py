"""Files that the commands are given."""

from __future__ import annotations

from pathlib import Path

import pytest
from invoking import GOOD


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.sparse"
    path.write_text(GOOD)
    return path


@pytest.fixture
def two(tmp_path: Path) -> Path:
    path = tmp_path / "two.sparse"
    path.write_text("pattern a { causal attend window(8) }\npattern b { attend full }\n")
    return path
