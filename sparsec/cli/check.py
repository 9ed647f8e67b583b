"""`sparsec check`: every problem of every file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sparsec import __version__
from sparsec.cli.files import FILE_OR_FOLDER, files_of, open_source
from sparsec.cli.options import imports_of, root_option
from sparsec.diagnostics.model import Diagnostic, DiagnosticError, Severity
from sparsec.diagnostics.render import render_json, render_text
from sparsec.diagnostics.render_tools import render_github, render_sarif
from sparsec.diagnostics.tables import count
from sparsec.program import check as check_source

FORMATS = ("text", "json", "sarif", "github")


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE_OR_FOLDER, metavar="FILE...")
@root_option
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
def check(files: tuple[Path, ...], strict: bool, form: str) -> None:
    """Report every problem of the files, and of the .sparse files in folders; - is standard input.

    Exits with 0 if there is none or only warnings, 1 if there are errors, 2 if a file cannot be read. --format sarif
    is for code scanning, github for the log of a workflow, in which GitHub shows each problem beside its line.

    Example: sparsec check examples/*.sparse
    """
    paths = files_of(files)
    found = tuple(diagnostic for path in paths for diagnostic in _problems(path))
    errors = sum(diagnostic.severity is Severity.ERROR for diagnostic in found)
    match form:
        case "json":
            click.echo(render_json(found))
        case "sarif":
            click.echo(render_sarif(found, __version__))
        case "github":
            click.echo(render_github(found), nl=bool(found))
        case _:
            if found:
                click.echo(render_text(found, color=sys.stdout.isatty()))
            click.echo(_summary(len(paths), errors, len(found) - errors))
    click.get_current_context().exit(1 if errors or (strict and found) else 0)


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
