"""The kinds of layers of a model, as the commands take them: chosen by options, and compiled side by side.

Invariant: a kind is compiled as its pattern alone would be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from sparsec.cli.options import parsed, resolved
from sparsec.diagnostics.model import DiagnosticError
from sparsec.program import LayerKind, Program

if TYPE_CHECKING:
    from sparsec.runtime.module import SparseAttention


def layer_kinds(
    program: Program,
    model: str,
    layers: int | None,
    name: str | None,
    settings: tuple[str, ...],
    counts: tuple[int | None, int | None],
) -> tuple[LayerKind, ...]:
    """The kinds of layers of the model called `model`, with the parameters of `--set`; `counts`: of heads and KV heads.

    Raises click.UsageError for a pattern's name beside it, CallError for an unknown one, and as `resolved` does.
    """
    if name is not None:
        raise click.UsageError("expected --pattern or --model, got both")
    found = program.model(model, layers=layers, **parsed(settings))
    return found.kinds(lambda pattern: resolved(pattern, *counts))


def check_layers_option(model: str | None, layers: int | None) -> None:
    """Raises click.UsageError for --layers without --model."""
    if layers is not None and model is None:
        raise click.UsageError("expected --layers with --model, got a pattern")


def compiled_kinds(
    kinds: Sequence[LayerKind],
    compile_kind: Callable[[int], SparseAttention],
    report: Callable[[str], None],
    *,
    gradients: bool,
    cache: bool,
) -> tuple[SparseAttention, ...]:
    """The module of each kind, which `compile_kind` gives for its number, with the kernels that its calls will need:
    of the forward pass, of the gradients, and over a cache where the kind has one. Raises as `sparsec.compile` does."""
    from sparsec.runtime.build.ahead import build_ahead
    from sparsec.runtime.build.at_once import side_by_side

    def told(what: str) -> Callable[[int, int], None]:
        return lambda done, of: report(f"compiling {what}: {done} of {of} kinds of layers are done")

    works = [(n, lambda n=n: compile_kind(n)) for n in range(len(kinds))]
    modules: tuple[SparseAttention, ...] = side_by_side(works, told("the forward passes"))
    if gradients:
        build_ahead(modules, gradients=True, progress=told("the gradients"))
    if cache:
        with_cache = [module for module, kind in zip(modules, kinds, strict=True) if _has_cache(kind)]
        build_ahead(with_cache, cache=True, progress=told("the kernels over KV caches"))
    return modules


def told_after(report: Callable[[str], None], after: str) -> Callable[[str], None]:
    """`report` with more to say behind each message."""
    return lambda text: report(text + after)


def _has_cache(kind: LayerKind) -> bool:
    try:
        kind.pattern.cache_layout(kind.meaning.heads, kind.meaning.kv_heads)
    except DiagnosticError:
        return False
    return True
