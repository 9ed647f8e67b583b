"""`sparsec fmt`: files in the one layout that the printer gives.

Invariant: a file is replaced whole or not at all, and keeps its mode.
"""

from __future__ import annotations

from pathlib import Path

import click

from sparsec.cli.options import FILE, open_source
from sparsec.cli.output import write_whole
from sparsec.diagnostics.model import DiagnosticError
from sparsec.syntax.parser import parse
from sparsec.syntax.printer import print_file


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
@click.option("--check", "only_check", is_flag=True, help="Change nothing; exit with 1 if a file would change.")
def fmt(files: tuple[Path, ...], only_check: bool) -> None:
    """Lay the files out in the standard form; comments stay.

    A file with syntax errors is left as it is, and the exit code is 1.

    Example: sparsec fmt --check examples/*.sparse
    """
    failed = changed = False
    for path in files:
        try:
            before, after = _formatted(path)
        except DiagnosticError as error:
            click.echo(str(error), err=True)
            failed = True
            continue
        if before == after:
            continue
        changed = True
        if not only_check:
            write_whole(path, after)
        click.echo(f"{'would reformat' if only_check else 'reformatted'} {click.format_filename(path)}")
    click.get_current_context().exit(1 if failed or (only_check and changed) else 0)


def _formatted(path: Path) -> tuple[bytes, bytes]:
    """What the file holds, and what it should."""
    source = open_source(path)
    file, problems = parse(source)
    if file is None:
        raise DiagnosticError(problems)
    return path.read_bytes(), print_file(file).encode()
