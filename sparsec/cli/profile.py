"""`sparsec profile`: a saved model and a prompt become a program with a policy for each KV group.

Invariant: what can be wrong with the command line is said before the model is loaded, and OUT is written whole or not
at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsec.cli.files import PLAIN_FILE
from sparsec.cli.options import output_options
from sparsec.cli.output import check_writable
from sparsec.diagnostics.model import CallError
from sparsec.diagnostics.progress import progress
from sparsec.diagnostics.tables import percent, table
from sparsec.diagnostics.whole_file import write_whole
from sparsec.sema.node import LIMIT

if TYPE_CHECKING:
    from sparsec.integrations.transformers.profile_text import Profile

_OWN = {"fastgen": ("local", "frequent"), "streaming": ("sink", "recent")}
"""Options of one method alone."""
_RECOVERY = {"fastgen": 0.95, "streaming": 0.98}


def _number(_context: click.Context, option: click.Parameter, given: float | None) -> float | None:
    if given is not None and given != given:
        raise click.BadParameter("expected a number from 0 to 1, got nan")
    return given


@click.command()
@output_options
@click.argument("folder", metavar="MODEL", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--prompt", required=True, type=PLAIN_FILE, help="A text file, which the model's tokenizer reads.")
@click.option(
    "--recovery",
    type=click.FloatRange(0, 1, min_open=True),
    callback=_number,
    help="The share of a group's attention that its policy keeps: 0.95 if left out, for streaming 0.98.",
)
@click.option("--method", type=click.Choice(tuple(_OWN)), default="fastgen", show_default=True)
@click.option("--minimum", is_flag=True, help="Take the least of a group's query heads in place of their mean.")
@click.option(
    "--local",
    type=click.FloatRange(0, 1),
    callback=_number,
    default=0.3,
    show_default=True,
    help="FastGen's latest tokens, as a share.",
)
@click.option(
    "--frequent",
    type=click.FloatRange(0, 1),
    callback=_number,
    default=0.3,
    show_default=True,
    help="FastGen's keys with the most attention, as a share.",
)
@click.option(
    "--sink", type=click.IntRange(0, LIMIT), default=64, show_default=True, help="First tokens of what streams."
)
@click.option(
    "--recent", type=click.IntRange(1, LIMIT), default=256, show_default=True, help="Latest tokens of what streams."
)
@click.option("--device", help="cpu, cuda or cuda:1; the GPU if left out and there is one.")
def profile(
    folder: Path,
    output: Path,
    force: bool,
    prompt: Path,
    recovery: float | None,
    method: str,
    minimum: bool,
    local: float,
    frequent: float,
    sink: int,
    recent: int,
    device: str | None,
) -> None:
    """Find the cheapest policy of each KV group that keeps enough of a model's attention to a prompt.

    MODEL is a folder that `save_pretrained` wrote, with its tokenizer. With `fastgen` the policies are special tokens,
    with punctuation, with frequent keys, with the latest keys, everything; with `streaming` the first and the latest
    tokens, or everything. Prints a table of the groups and writes a `.sparse` model, which `apply` runs.

    Example: sparsec profile ./llama --prompt book.txt --recovery 0.95 -o llama.sparse
    """
    _refuse_others(method)
    check_writable(output, force)
    recovery = _RECOVERY[method] if recovery is None else recovery
    with progress() as report:
        report("importing transformers")
        try:
            from sparsec.integrations.transformers.profiling import fastgen_of, profile_by
            from sparsec.integrations.transformers.recovery import StreamingHeads
            from sparsec.integrations.transformers.saved import load_saved
        except ModuleNotFoundError as error:
            raise CallError(f"expected the extra sparsec[transformers], got no module {error.name}") from error
        text = _text(prompt)
        report("loading the model")
        saved = load_saved(folder, device)
    ids = saved.ids(text)
    if method == "fastgen":
        found = profile_by(
            fastgen_of(saved.tokenizer, local=local, frequent=frequent),
            saved.model,
            ids,
            recovery=recovery,
            minimum=minimum,
        )
    else:
        found = profile_by(StreamingHeads(sink, recent), saved.model, ids, recovery=recovery, minimum=minimum)
    write_whole(output, found.text.encode())
    click.echo(f"{_groups(found)}\n\nwrote {click.format_filename(output)}: {found.summary}")


def _refuse_others(method: str) -> None:
    """Raises click.BadParameter for an option of the method that is not taken."""
    context = click.get_current_context()
    for other, names in _OWN.items():
        for name in names if other != method else ():
            if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
                raise click.BadParameter(f"expected --method {other} with it, got {method}", param_hint=f"'--{name}'")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        name = click.format_filename(path)
        raise CallError(
            f"expected a prompt of UTF-8 text, got {name} with other bytes from {error.start} on"
        ) from error


def _groups(found: Profile) -> str:
    """A row for each KV group."""
    rows = [
        (str(layer), str(group), each.policy.name, percent(each.recovered), f"{each.nbytes:,}")
        for layer, groups in enumerate(found.layers)
        for group, each in enumerate(groups)
    ]
    return table(("layer", "group", "policy", "recovery", "bytes"), rows)
