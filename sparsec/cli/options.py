"""Options that several commands share, and what they choose: a program, a pattern, head counts, lengths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import click
from click.core import ParameterSource

from sparsec.backends import registry
from sparsec.cli.files import FILE, STDIN, open_source
from sparsec.diagnostics.model import CallError
from sparsec.pictures.methods import DEFAULT_HEADS, heads_or_default
from sparsec.program import NoNameError, Pattern, Program, read_program
from sparsec.sema.model import ResolvedPattern
from sparsec.sema.node import MAX_HEADS, MAX_LAYERS
from sparsec.syntax.imports import NO_IMPORTS, Imports, from_disk

DTYPES = ("float32", "bfloat16", "float16")
SHORT_DTYPES = {"fp32": "float32", "float": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16"}

_ROOT = "sparsec.root"
_Command = TypeVar("_Command", bound=Callable[..., Any])


def dtype_option(default: str) -> Callable[[_Command], _Command]:
    """--dtype: PyTorch's names of the dtypes that kernels take, and the usual short ones."""
    return click.option(
        "--dtype",
        type=click.Choice((*DTYPES, *SHORT_DTYPES)),
        default=default,
        show_default=True,
        callback=lambda _, __, given: SHORT_DTYPES.get(given, given),
    )


def dtype_for(target: str, dtype: str) -> str:
    """`dtype` where --dtype is given, else that of the target's backend."""
    source = click.get_current_context().get_parameter_source("dtype")
    return dtype if source is not ParameterSource.DEFAULT else registry.BACKENDS[registry.backend_name(target)].dtype


class Length(click.IntRange):
    """A number of tokens: `131072`; as in the language, `128k`; also `128K`, `1m` and `1M`."""

    name = "length"
    units: ClassVar[dict[str, int]] = {"k": 1 << 10, "m": 1 << 20}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        unit = self.units.get(text[-1:].lower(), 1)
        digits = text if unit == 1 else text[:-1]
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
            self.fail(f"expected a number of tokens such as 131072 or 128k, got {text!r:.40}", param, ctx)
        return int(super().convert(int(digits) * unit, param, ctx))


def seq_len_option(most: int, default: int) -> Callable[[_Command], _Command]:
    """--seq-len, once."""
    return click.option("--seq-len", type=Length(1, most), default=default, show_default=True, metavar="N")


def model_option(text: str) -> Callable[[_Command], _Command]:
    """--model, with its help, and --layers."""
    return lambda command: click.option("--model", metavar="NAME", help=text)(layers_option(command))


def layers_option(command: _Command) -> _Command:
    return click.option(
        "--layers", type=click.IntRange(1, MAX_LAYERS), metavar="L", help="Of the model, where the file does not say."
    )(command)


def file_argument(command: _Command) -> _Command:
    """FILE, or - for standard input; --root."""
    return click.argument("file", type=FILE)(root_option(command))


def root_option(command: _Command) -> _Command:
    """--root, which `imports_of` reads."""
    return click.option(
        "--root",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="FOLDER",
        expose_value=False,
        callback=lambda context, _, given: context.meta.__setitem__(_ROOT, given),
        help="Where files may be imported from; the folder of FILE if left out.",
    )(command)


def imports_of(path: Path) -> Imports:
    """Where the file of a command finds what it imports; standard input does so in --root alone.

    Raises CallError for a --root that does not hold the file.
    """
    root = _root()
    if path != STDIN:
        return Imports.of_file(path, root)
    return NO_IMPORTS if root is None else Imports(from_disk(root / STDIN, root))


def _root() -> Path | None:
    context = click.get_current_context(silent=True)
    found: Path | None = None if context is None else context.meta.get(_ROOT)
    return found


def pattern_options(command: _Command) -> _Command:
    """--pattern, --set, --heads, --kv-heads."""
    return click.option("--pattern", "name", metavar="NAME", help="Which pattern of the file.")(head_options(command))


def head_options(command: _Command) -> _Command:
    """--set, --heads, --kv-heads."""
    for option in (
        click.option(
            "--kv-heads", type=click.IntRange(1, MAX_HEADS), help="KV heads; one for each query head if left out."
        ),
        click.option(
            "--heads",
            type=click.IntRange(1, MAX_HEADS),
            help=f"Query heads; what the file says, or {DEFAULT_HEADS}, if left out.",
        ),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="NAME=VALUE",
            help="Override a parameter, as in --set every=8b; may be repeated.",
        ),
    ):
        command = option(command)
    return command


def output_options(command: _Command) -> _Command:
    """-o OUT, --force."""
    for option in (
        click.option("--force", is_flag=True, help="Replace OUT if it exists."),
        click.option(
            "-o",
            "--output",
            required=True,
            metavar="OUT",
            type=click.Path(dir_okay=False, path_type=Path),
            help="The `.sparse` file to write.",
        ),
    ):
        command = option(command)
    return command


def value_dim_option(command: _Command) -> _Command:
    """--value-dim."""
    return click.option("--value-dim", type=click.IntRange(1, 1024), help="Of values; --head-dim if left out.")(command)


def kernel_options(command: _Command) -> _Command:
    """--head-dim, --dtype."""
    head_dim = click.option("--head-dim", type=click.IntRange(1, 1024), default=64, show_default=True)
    return head_dim(dtype_option("float32")(command))


def open_program(path: Path) -> Program:
    """The program at `path`. Raises DiagnosticError if it has errors, OSError if it cannot be read."""
    return read_program(open_source(path), imports_of(path))


def choose(program: Program, name: str | None, settings: tuple[str, ...], *, or_first: bool = False) -> Pattern:
    """The pattern called `name`, with the parameters of `--set`; `or_first`: without a name the file's first.

    Raises CallError for an unknown name, and for none where the file has several and `or_first` is False.
    """
    if name is None and or_first and len(program.patterns) > 1:
        name, *others = program.patterns
        click.echo(f"taking the first pattern, {name}; --pattern takes another: {', '.join(others)}", err=True)
    try:
        return program.pattern(name, **parsed(settings))
    except NoNameError as error:
        raise CallError(f"{error}; give --pattern NAME") from None


def parsed(settings: tuple[str, ...]) -> dict[str, str]:
    """The values of `--set` by name."""
    params: dict[str, str] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not key or not equals or not text:
            raise click.BadParameter(f"expected NAME=VALUE, got {setting!r}", param_hint="'--set'")
        if key.strip() in params:
            raise click.BadParameter(f"expected each name once, got {key.strip()!r} twice", param_hint="'--set'")
        params[key.strip()] = text.strip()
    return params


def resolved(pattern: Pattern, heads: int | None, kv_heads: int | None) -> ResolvedPattern:
    """The pattern for the counts of the options, the file, or DEFAULT_HEADS. Raises DiagnosticError."""
    heads = heads_or_default(pattern, heads, kv_heads)
    found = pattern.resolve(heads, kv_heads)
    with pattern.refusals():
        pattern.lowered(heads, kv_heads).within_limits()
    return found


def check_target_option(target: str) -> None:
    """Raises click.BadParameter for a target that no kernel is built for."""
    try:
        registry.check_target(target)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--target'") from error
