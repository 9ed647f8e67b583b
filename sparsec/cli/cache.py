"""`sparsec cache`: the folder of built kernels: where it is, how large, and how to empty it."""

from __future__ import annotations

import click

from sparsec.diagnostics.tables import count
from sparsec.runtime.build.cache import cache_folder, clear_cache, entry_sizes


@click.command()
@click.option("--clear", is_flag=True, help="Take every entry away; kernels are built again when they are called.")
def cache(clear: bool) -> None:
    """Print where built kernels are kept, and their number and size.

    The folder is $SPARSEC_CACHE_DIR, else sparsec in $XDG_CACHE_HOME or ~/.cache. A process that runs goes on with the
    kernels that it has loaded.

    Example: sparsec cache --clear
    """
    folder = cache_folder()
    if folder is None:
        click.echo("no folder: there is no home folder, and SPARSEC_CACHE_DIR names none")
        return
    sizes = entry_sizes(folder)
    told = f"{count(len(sizes), 'entry', 'entries')}, {sum(sizes.values()) / 1e6:.1f} MB"
    if clear:
        clear_cache(folder)
    click.echo(f"{click.format_filename(folder)}: {told}{', cleared' if clear else ''}")
