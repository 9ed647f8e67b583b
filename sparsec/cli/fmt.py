"""`sparsec fmt`: files in the one layout that the printer gives.

Invariant: a file is replaced whole or not at all, and keeps its mode.
"""

from __future__ import annotations

from difflib import unified_diff
from pathlib import Path

import click

from sparsec.cli.files import FILE_OR_FOLDER, STDIN, files_of, open_source
from sparsec.diagnostics.model import DiagnosticError
from sparsec.diagnostics.whole_file import write_whole
from sparsec.syntax.parser import parse
from sparsec.syntax.printer import print_file


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE_OR_FOLDER, metavar="FILE...")
@click.option("--check", "only_check", is_flag=True, help="Change nothing; exit with 1 if a file would change.")
@click.option("--diff", "only_diff", is_flag=True, help="Change nothing; print what would change, and exit as --check.")
def fmt(files: tuple[Path, ...], only_check: bool, only_diff: bool) -> None:
    """Lay the files out in the standard form, and the .sparse files in folders; comments stay.

    - is standard input, which is written to standard output. A file with syntax errors is left as it is, and the exit
    code is 1.

    Example: sparsec fmt --check examples/*.sparse
    """
    failed = changed = False
    unwritten = only_check or only_diff
    for path in files_of(files):
        try:
            before, after = _formatted(path)
        except DiagnosticError as error:
            click.echo(str(error), err=True)
            failed = True
            continue
        if path == STDIN and not unwritten:
            click.echo(after, nl=False)
            continue
        if before == after:
            continue
        changed = True
        if only_diff:
            click.echo("".join(_difference(path, before, after)), nl=False)
            continue
        if not only_check:
            write_whole(path, after)
        click.echo(f"{'would reformat' if only_check else 'reformatted'} {click.format_filename(path)}")
    click.get_current_context().exit(1 if failed or (unwritten and changed) else 0)


def _formatted(path: Path) -> tuple[bytes, bytes]:
    """What the file holds, and what it should."""
    source = open_source(path)
    file, problems = parse(source)
    if file is None:
        raise DiagnosticError(problems)
    before = source.text.encode() if path == STDIN else path.read_bytes()
    return before, print_file(file).encode()


def _difference(path: Path, before: bytes, after: bytes) -> list[str]:
    """The lines of a unified diff."""
    name = click.format_filename(path)
    old, new = (text.decode("utf-8", "replace").splitlines(keepends=True) for text in (before, after))
    lines = unified_diff(old, new, name, f"{name} (formatted)")
    return [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines]
