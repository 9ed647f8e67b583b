"""The `sparsec` command: every subcommand, and what becomes of an error.

Invariant: a user's mistake ends in a message on stderr and an exit code, never in a traceback: 1 for a file with errors
and for work that failed, 2 for a wrong command line or a file that cannot be read or written, 130 for an interrupt.
"""

from __future__ import annotations

import errno
import io
import sys
from typing import Any

import click

from sparsec import __version__
from sparsec.cli.bench import bench
from sparsec.cli.cache import cache
from sparsec.cli.check import check
from sparsec.cli.compile import compile_pattern
from sparsec.cli.explain import explain
from sparsec.cli.fmt import fmt
from sparsec.cli.imports import imports
from sparsec.cli.list import list_items
from sparsec.cli.lower import lower
from sparsec.cli.lsp import lsp
from sparsec.cli.play import play
from sparsec.cli.profile import profile
from sparsec.cli.run import run
from sparsec.cli.show import show
from sparsec.cli.tune import tune_tiles
from sparsec.cli.verify import verify
from sparsec.diagnostics.model import CallError, DiagnosticError, InternalError, SparsecError


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InternalError:
            raise
        except DiagnosticError as error:
            click.echo(str(error), err=True)
            ctx.exit(1)
        except SparsecError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2 if isinstance(error, CallError) else 1)
        except KeyboardInterrupt:
            click.echo("\ninterrupted", err=True)
            ctx.exit(130)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            where = f"{click.format_filename(error.filename)}: " if error.filename is not None else ""
            click.echo(f"error: {where}{error.strerror or error}", err=True)
            ctx.exit(2)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sparsec")
def commands() -> None:
    """Attention patterns, written in a small language and compiled to kernels.

    Example: sparsec run examples/s2.sparse
    """


for _command in (
    check,
    fmt,
    show,
    explain,
    lower,
    compile_pattern,
    run,
    verify,
    bench,
    tune_tiles,
    imports,
    profile,
    play,
    lsp,
    list_items,
    cache,
):
    commands.add_command(_command)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the terminal lacks must not stop a message
            stream.reconfigure(errors="backslashreplace")
    commands(prog_name="sparsec")
