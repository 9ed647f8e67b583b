"""A program, and which of its models or patterns a host's model gets -> a pattern for each layer.

Invariant: a model has as many layers as the host's, or it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sparsec.program import Pattern, Program, load, parse
from sparsec.sema.arguments import Given


def program_of(given: Program | Path | str) -> Program:
    """given: a Program, a path (a Path, or a string that ends in `.sparse`), or source text."""
    if isinstance(given, Program):
        return given
    if isinstance(given, Path) or given.endswith(".sparse"):
        return load(given)
    return parse(given)


def patterns_of(program: Program, name: str | None, params: Mapping[str, Given], layers: int) -> list[Pattern]:
    """Of each of the host's layers, whose number a file may leave out; equal ones are one object.

    name: of a model or a pattern; left out, the file's model if it has one, else its only pattern. Raises CallError.
    """
    if name in program.models or (name is None and program.models):
        chosen = program.model(name, layers=layers, **params)
        return [chosen.layer(layer) for layer in range(layers)]
    return [program.pattern(name, **params)] * layers
