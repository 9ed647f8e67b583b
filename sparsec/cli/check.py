"""`sparsec check`: every problem of every file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sparsec.cli.options import FILE, imports_of, open_source, root_option
from sparsec.diagnostics.model import Diagnostic, DiagnosticError, Severity
from sparsec.diagnostics.render import render_json, render_text
from sparsec.diagnostics.tables import count
from sparsec.program import check as check_source


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
@root_option
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def check(files: tuple[Path, ...], form: str) -> None:
    """Report every problem of the files.

    Exits with 0 if there is none or only warnings, 1 if there are errors, 2 if a file cannot be read.

    Example: sparsec check examples/*.sparse
    """
    found = tuple(diagnostic for path in files for diagnostic in _problems(path))
    errors = sum(diagnostic.severity is Severity.ERROR for diagnostic in found)
    if form == "json":
        click.echo(render_json(found))
    else:
        if found:
            click.echo(render_text(found, color=sys.stdout.isatty()))
        click.echo(_summary(len(files), errors, len(found) - errors))
    click.get_current_context().exit(1 if errors else 0)


def _problems(path: Path) -> tuple[Diagnostic, ...]:
    try:
        source = open_source(path)
    except DiagnosticError as error:
        return error.diagnostics
    return check_source(source, imports_of(path))[1]


def _summary(files: int, errors: int, warnings: int) -> str:
    counts = [count(errors, "error")] if errors else []
    counts += [count(warnings, "warning")] if warnings else []
    return f"{count(files, 'file')}: {', '.join(counts) or 'no problems'}"
