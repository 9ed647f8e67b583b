"""`sparsec` as tests call it, in this process: its output and exit code, and no traceback for a user's mistake."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from sparsec.cli.main import commands

GOOD = "pattern p(w = 64) { causal  attend window(w) | sink(4) }\n"


def invoke(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(commands, [str(argument) for argument in arguments], prog_name="sparsec")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result
