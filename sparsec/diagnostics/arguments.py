"""What a caller gave for an argument -> a value of the type that the rest relies on.

Invariant: anything else ends in a CallError with the expected and the given value.
"""

from __future__ import annotations

from operator import index
from pathlib import Path
from typing import TypeVar

from sparsec.diagnostics.model import CallError

_Kind = TypeVar("_Kind")


def instance(name: str, given: object, kind: type[_Kind]) -> _Kind:
    """`given`, which has to be of that type."""
    if not isinstance(given, kind):
        raise CallError(f"expected {name} of type {kind.__name__}, got {type(given).__name__}")
    return given


def integer(name: str, given: object, least: int | None = None, most: int | None = None) -> int:
    """`given` as an int from `least` to `most`, of any type that counts as one; a boolean does not."""
    try:
        if isinstance(given, bool):
            raise TypeError
        number = index(given)  # type: ignore[arg-type]  # it raises TypeError for what has no index
    except (TypeError, ValueError, RuntimeError):  # the last two: tensors of several elements, or without data
        raise CallError(f"expected an integer for {name}, got {given!r:.80}") from None
    if (least is not None and number < least) or (most is not None and number > most):
        bounds = f"of at least {least}" if most is None else f"between {least} and {most}"
        raise CallError(f"expected {name} {bounds}, got {number}")
    return number


def path(given: object) -> Path:
    """`given` as a path: a string or anything that is a path to the system."""
    try:
        return Path(given)  # type: ignore[arg-type]  # it raises TypeError for what is none
    except TypeError:
        raise CallError(f"expected a path, got {given!r:.80}") from None
