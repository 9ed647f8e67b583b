"""A function of another library -> the same one with some of the names that it looks up bound to something else.

Invariant: the library stays as it is, for every other caller too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

from sparsec.diagnostics.model import CallError


def with_names(function: Callable[..., Any], **names: Any) -> Callable[..., Any]:
    """Without its decorators. Raises CallError where it looks a name up no more."""
    plain = inspect.unwrap(function)
    assert isinstance(plain, FunctionType)
    missing = [name for name in names if name not in plain.__code__.co_names or name not in plain.__globals__]
    if missing:
        raise CallError(
            f"expected {plain.__qualname__} of {plain.__module__} to look up {missing[0]}, as in transformers 5.23 and "
            "5.24, got a version that does not: install one of these"
        )
    bound = FunctionType(
        plain.__code__, {**plain.__globals__, **names}, plain.__name__, plain.__defaults__, plain.__closure__
    )
    bound.__kwdefaults__ = plain.__kwdefaults__
    return bound
