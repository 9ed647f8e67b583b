"""Turns what a caller gives for a parameter (`8`, `True`, `"8b"`, `[0, 3]`) into a value of the parameter's type.

Invariant: a string is read by the language's own parser, as a constant without names; nothing in it is executed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Protocol, SupportsIndex

from sparsec.diagnostics import arguments
from sparsec.diagnostics.model import CallError, Diagnostic
from sparsec.diagnostics.source import SourceFile
from sparsec.sema.checked import CheckedFile
from sparsec.sema.checks.calls import fits_parameter
from sparsec.sema.checks.expressions import check
from sparsec.sema.checks.scope import Parameter, Scope
from sparsec.sema.model import RunTimeLength
from sparsec.sema.node import LIMIT, Depends, Type
from sparsec.sema.resolution.evaluate import evaluate
from sparsec.sema.resolution.values import Budget, Evaluator, Place, RangeValue, Value
from sparsec.sema.terms import Sized
from sparsec.syntax import tree
from sparsec.syntax.parser import parse


class Numbers(Protocol):
    """An array or a tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def tolist(self) -> Any: ...


Given = SupportsIndex | str | range | Numbers | Sequence["SupportsIndex | float | range"]
"""Integers of any type, so also those of NumPy and of torch, and their arrays of one dimension."""

EXAMPLES = {
    Type.INTEGER: "64",
    Type.BLOCKS: "8b",
    Type.BOOLEAN: "true",
    Type.LIST: "[0, 3]",
    Type.BLOCK_LIST: "[1b, 4b]",
    Type.DECIMAL_LIST: "[0.5, 0.25]",
    Type.RANGE: "0..4",
    Type.BLOCK_RANGE: "0..4b",
}
"""As the language writes them."""
_PYTHON = {Type.INTEGER: "64", Type.BOOLEAN: "True", Type.LIST: "[0, 3]", Type.DECIMAL_LIST: "[0.5, 0.25]"}
"""Those that Python writes without a string."""


def split_arguments(
    given: Mapping[str, Given], own: Iterable[Parameter], checked: CheckedFile, owner: str
) -> tuple[dict[str, Value], dict[str, Value]]:
    """The values for an item's own parameters and for the file's; the item's hide the file's of the same name.

    Raises CallError for an unknown name or a value of another type.
    """
    known = {parameter.name: parameter for parameter in own}
    own_values: dict[str, Value] = {}
    file_values: dict[str, Value] = {}
    for name, value in given.items():
        parameter = known.get(name) or checked.parameters.get(name)
        if parameter is None:
            names = tuple(name for name in (*known, *checked.parameters) if " " not in name)
            close = get_close_matches(name[:64], names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"its parameters: {', '.join(names) or 'none'}"
            others = [p.name for p in checked.patterns.values() if any(own.name == name for own in p.parameters)]
            if others and not close:
                hint += f"; it is one of pattern {', '.join(others[:3])}"
            raise CallError(f"{owner} has no parameter {name!r}: {hint}")
        (own_values if name in known else file_values)[name] = convert(parameter, value)
    return own_values, file_values


def convert(parameter: Parameter, given: Given) -> Value:
    """`given` as a value of the parameter's type; raises CallError if it is none."""
    plain = arguments.as_python(given)
    if isinstance(plain, list | tuple):
        plain = [arguments.as_python(item) for item in plain]
    match plain:
        case str():
            return _read(parameter, plain)
        case bool():
            fits = parameter.type is Type.BOOLEAN
            value: Value = plain
        case int():
            fits, value = parameter.type is Type.INTEGER or (parameter.type is Type.BLOCKS and plain == 0), plain
        case range():
            fits, value = parameter.type is Type.RANGE and plain.step == 1, RangeValue(plain.start, plain.stop)
        case list():
            fits = parameter.type is Type.LIST and all(_is_item(item) for item in plain)
            fits = fits or (parameter.type is Type.BLOCK_LIST and not plain)
            fits = fits or (parameter.type is Type.DECIMAL_LIST and all(_is_decimal(item) for item in plain))
            value = tuple(RangeValue(item.start, item.stop) if isinstance(item, range) else item for item in plain)
        case _:
            fits, value = False, 0
    if not fits:
        raise _wrong(parameter, given, repr(given)[:60])
    for number in _integers(value):
        if abs(number) > LIMIT:
            raise CallError(f"parameter {parameter.name!r}: expected integers up to {LIMIT}, got {number}")
    return value


def _is_item(item: object) -> bool:
    return (isinstance(item, int) and not isinstance(item, bool)) or (isinstance(item, range) and item.step == 1)


def _is_decimal(item: object) -> bool:
    return isinstance(item, int | float) and not isinstance(item, bool)


def _integers(value: Value | float) -> tuple[int, ...]:
    if isinstance(value, tuple):
        return tuple(number for item in value for number in _integers(item))
    if isinstance(value, RangeValue):
        return tuple(end for end in (value.start, value.stop) if isinstance(end, int))
    return (value,) if isinstance(value, int) else ()


def _wrong(parameter: Parameter, given: object, shown: str, why: str | None = None) -> CallError:
    written = EXAMPLES[parameter.type]
    example = written if isinstance(given, str) else _PYTHON.get(parameter.type, f'"{written}"')
    expected = f"{parameter.type.value} such as {example}"
    detail = f" ({why})" if why else ""
    return CallError(f"parameter {parameter.name!r}: expected {expected}, got {shown}{detail}")


def _read(parameter: Parameter, text: str) -> Value:
    shown = repr(text if len(text) <= 40 else text[:36] + "...")
    problems: list[Diagnostic] = []
    # The value stands in a file of its own, as the default of a parameter: the one place where any constant may.
    # A range with an open end has parentheses there, which a caller, as one who writes an argument, may leave out.
    bare = text.strip()
    written = f"({text})" if bare.startswith("..") or bare.endswith("..") else text
    source = SourceFile(f"<{parameter.name}>", f"param value = {written}\n")
    file, syntax_problems = parse(source)
    problems.extend(syntax_problems)
    if file is None or problems or len(file.items) != 1 or not isinstance(file.items[0], tree.ParamItem):
        raise _wrong(parameter, text, shown, problems[0].message if problems else None)
    scope = Scope(source, problems.append, "in the value of a parameter", Depends.NOTHING)
    node = check(file.items[0].parameter.default, scope)
    run = Evaluator(
        lambda code, span, /, **facts: problems.append(code.of(source, span, facts)), {}, _no_pattern, {}, Budget()
    )
    fits = fits_parameter(node, parameter, scope) and not problems
    value = evaluate(node, Place(source, {}, {}), run) if fits else None
    if value is None or isinstance(value, RunTimeLength | Sized):
        raise _wrong(parameter, text, shown, problems[0].message if problems else None)
    return value


def _no_pattern(run: Evaluator, node: object, place: Place) -> Sized | None:
    return None
