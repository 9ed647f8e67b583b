"""The scripts of the day import what exists: on a machine with a GPU it is late to learn that one does not."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

SCRIPTS = sorted(
    path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith(("test_", "conftest"))
)


@pytest.mark.quick
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_imports(name: str) -> None:
    assert import_module(name).__file__ == str(Path(__file__).with_name(f"{name}.py"))
