"""What a caller gave for an argument -> a value of the type that the rest relies on.

Invariant: anything else ends in a CallError with the expected and the given value.
"""

from __future__ import annotations

from operator import index
from pathlib import Path
from typing import TypeVar

from sparsec.diagnostics.model import CallError

ROW_LIMIT = 1 << 15
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


def as_python(given: object) -> object:
    """What `given` holds, as Python's own numbers and lists: an integer of any type, a scalar or a row of an array.

    Anything else comes back as it is; so does an array that holds more than ROW_LIMIT numbers, or none that are known.
    """
    shape, items = getattr(given, "shape", None), getattr(given, "tolist", None)
    try:
        if isinstance(shape, tuple) and callable(items):
            return items() if len(shape) == 0 or (len(shape) == 1 and shape[0] <= ROW_LIMIT) else given
        return given if isinstance(given, bool) else index(given)  # type: ignore[arg-type]  # see `integer`
    except (TypeError, ValueError, RuntimeError):
        return given


def optional(name: str, given: object, least: int, most: int) -> int | None:
    """`integer`, or None where None is given."""
    return None if given is None else integer(name, given, least, most)


def path(given: object) -> Path:
    """`given` as a path: a string or anything that is a path to the system."""
    try:
        return Path(given)  # type: ignore[arg-type]  # it raises TypeError for what is none
    except TypeError:
        raise CallError(f"expected a path, got {given!r:.80}") from None
