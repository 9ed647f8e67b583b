"""A program, a pattern or a model, and which of them a host's model gets -> a pattern for each layer.

Invariant: a model has as many layers as the host's, or it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsec.diagnostics.arguments import as_python
from sparsec.diagnostics.model import CallError
from sparsec.program import Model, Naming, Pattern, Program, load, parse
from sparsec.sema.arguments import Given

AnyProgram = Program | Pattern | Model | Path | str
"""A Program, a Pattern or Model of one, a path (a Path, or a string that ends in `.sparse`), or source text."""


def origin_of(given: AnyProgram, name: str | None, params: Mapping[str, Given]) -> Naming:
    """The program, which of its models or patterns is meant, and parameters. Raises CallError.

    name, params: of a Program, a path or a text; a Pattern and a Model have their own.
    """
    match given:
        case Pattern() | Model():
            kind = type(given).__name__
            if name is not None or params:
                raise CallError(f"expected name= and params= without a {kind}, which has its own, got them with one")
            if given.origin is None:
                raise CallError("expected a Pattern of program.pattern(name), got one made of a pattern or a model")
            return given.origin
        case Program():
            return Naming(given, name, params)
        case Path():
            return Naming(load(given), name, params)
        case str():
            return Naming((load if given.endswith(".sparse") else parse)(given), name, params)
    raise CallError(f"expected a Program, a Pattern, a Model, a path or a text, got {type(given).__name__}")


def patterns_of(origin: Naming, layers: int) -> list[Pattern]:
    """Of each of the host's layers, whose number a file may leave out; equal ones are one object.

    Without a name, the file's model is taken if it has one, else its only pattern. Raises CallError.
    """
    program, name, params = origin.program, origin.name, origin.params
    if name in program.models or (name is None and program.models):
        chosen = program.model(name, layers=layers, **params)
        return [chosen.layer(layer) for layer in range(layers)]
    return [program.pattern(name, **params)] * layers


def params_as_json(params: Mapping[str, Given]) -> dict[str, Any]:
    """Values of parameters as JSON holds them, which `Program.pattern` takes as it takes `params`."""
    return {name: _plain(value) for name, value in params.items()}


def _plain(given: Given) -> Any:
    value = as_python(given)
    if isinstance(value, range):
        return f"{value.start}..{value.stop}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [number for part in map(as_python, value) for number in (part if isinstance(part, range) else [part])]
    return value
