"""`sparsec` as tests call it, in this process: its output and exit code, and no traceback for a user's mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from sparsec.cli.main import commands

GOOD = "pattern p(w = 64) { causal  attend window(w) | sink(4) }\n"


def invoke(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(commands, [str(argument) for argument in arguments], prog_name="sparsec")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def progress_of(command: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a command tells of its progress."""
    said: list[str] = []

    @contextmanager
    def recorded() -> Iterator[Callable[[str], None]]:
        yield said.append

    monkeypatch.setattr(command, "progress", recorded)
    return said
