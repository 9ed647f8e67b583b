"""`sparsec import`: head tables of other projects become models.

Invariant: OUT is written whole or not at all, and a file that exists is replaced with --force alone.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import click

from sparsec.cli.files import PLAIN_FILE
from sparsec.cli.options import output_options
from sparsec.cli.output import check_writable
from sparsec.diagnostics.whole_file import write_whole
from sparsec.imports.duo import Streaming, duo_model
from sparsec.imports.minference import minference_model
from sparsec.imports.table import read_table
from sparsec.sema.node import LIMIT, MAX_HEADS

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group(name="import")
def imports() -> None:
    """Turn a head table of another project into a model.

    A bad table is reported as `sparsec check` reports a bad file: exit 1 for errors, 2 if a file cannot be read or
    written.

    Example: sparsec import duo full_attention_heads.tsv -o duo.sparse
    """


def _table(command: _Command) -> _Command:
    """TABLE, -o OUT, --force."""
    return output_options(click.argument("table", type=PLAIN_FILE)(command))


def _exactly(_context: click.Context, _option: click.Parameter, given: float) -> Fraction:
    """The decimal as it was typed."""
    if given != given:
        raise click.BadParameter("expected a number from 0 to 1, got nan")
    return Fraction(repr(given))


@imports.command()
@_table
@click.option(
    "--sparsity",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    callback=_exactly,
    help="The share of the KV groups that stream.",
)
@click.option(
    "--sink", type=click.IntRange(0, LIMIT), default=128, show_default=True, help="First tokens that they see."
)
@click.option("--recent", type=click.IntRange(1, LIMIT), default=256, show_default=True, help="Latest tokens they see.")
@click.option("--heads", type=click.IntRange(1, MAX_HEADS), help="Query heads; left to the caller if left out.")
def duo(table: Path, output: Path, force: bool, sparsity: Fraction, sink: int, recent: int, heads: int | None) -> None:
    """Import a table of DuoAttention: a line for each layer, a score for each KV group.

    The groups with the highest scores see everything. Of equal scores, those of lower layers rank higher, then those of
    lower groups.

    Example: sparsec import duo full_attention_heads.tsv --sparsity 0.5 --sink 128 --recent 256 -o duo.sparse
    """
    check_writable(output, force)
    source = read_table(table, click.format_filename(table))
    text, said = duo_model(source, sparsity, Streaming(sink, recent), heads)
    _write(output, text, said)


@imports.command()
@_table
def minference(table: Path, output: Path, force: bool) -> None:
    """Import a table of MInference: for each layer the type and the sizes of each query head.

    Heads that choose their keys at run time become inputs: `vertical`, `slash` and `picks`.

    Example: sparsec import minference Llama_3_8B.json -o minference.sparse
    """
    check_writable(output, force)
    text, said = minference_model(read_table(table, click.format_filename(table)))
    _write(output, text, said)


def _write(output: Path, text: str, said: str) -> None:
    write_whole(output, text.encode())
    click.echo(f"wrote {click.format_filename(output)}: {said}")
