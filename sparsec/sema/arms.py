"""What each layer uses, or each KV group sees -> the arms of a model, or of a pattern, that say so.

Invariant: the arms name every layer once, with those that are alike in one list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from sparsec.sema.printer import head_ranges

K = TypeVar("K")


def layer_arms(uses: Mapping[str, Iterable[int]]) -> list[str]:
    """The arms of a model: what layers use -> these layers."""
    if len(uses) == 1:
        return [f"use {each}" for each in uses]
    return [f"where {among('l', tuple(layers))} use {each}" for each, layers in uses.items()]


def among(name: str, numbers: tuple[int, ...]) -> str:
    """The condition that a name is one of ascending numbers."""
    return f"{name} == {numbers[0]}" if len(numbers) == 1 else f"{name} in [{head_ranges(numbers)}]"


def alike(values: Iterable[K]) -> dict[K, tuple[int, ...]]:
    """Each distinct value, in the order of its first place, and its places."""
    places: dict[K, list[int]] = {}
    for place, value in enumerate(values):
        places.setdefault(value, []).append(place)
    return {value: tuple(found) for value, found in places.items()}
