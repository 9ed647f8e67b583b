"""The tensors that a call gives for a pattern's inputs -> all of them in order, checked.

Invariant: no number is read unless the caller asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError
from sparsec.runtime.inputs.values import check_values
from sparsec.runtime.kv.stored import dtype_name
from sparsec.sema.model import InputDecl
from sparsec.sema.shapes import Given, Sizes, problem_of

InputTensors = Tensor | tuple[Tensor, Tensor]

_NAMES = {torch.int32: "int32", torch.int64: "int64", torch.bool: "bool", torch.float32: "float32"}
"""Of the dtypes that an input may have: an operator's call has no time to print them."""


@dataclass(slots=True)
class LastFit:
    """What tensors of the last call that came here were found to fit: a step of decoding is short enough to feel the
    check, and the next step's are like them."""

    like: tuple[object, ...] = ()

    def flat(
        self, declared: tuple[InputDecl, ...], given: Mapping[str, InputTensors] | None, sizes: Sizes, like: Tensor
    ) -> list[Tensor]:
        """As `flat_inputs`."""
        if not isinstance(given, dict) or len(given) != len(declared):
            return flat_inputs(declared, given, sizes, like)
        found: list[Tensor] = []
        known: list[object] = [sizes.batch, sizes.n_q, sizes.new_keys, sizes.n_k, sizes.q_offset, like.device]
        for decl in declared:
            each = given.get(decl.name)
            if type(each) is not Tensor:
                break
            found.append(each)
            known += (each.shape, each.dtype, each.device, each.layout)
        now = tuple(known) if len(found) == len(declared) else ()
        if not now or now != self.like:
            found, self.like = flat_inputs(declared, given, sizes, like), now
        return found


def flat_inputs(
    declared: tuple[InputDecl, ...],
    given: Mapping[str, InputTensors] | None,
    sizes: Sizes,
    like: Tensor,
    *,
    block: int | None = None,
) -> list[Tensor]:
    """The tensors of the inputs in the order of their declarations, on the device of `like`. Raises CallError.

    `declared` are settled. With the pattern's `block` size the numbers are read and checked too.
    """
    if given is not None and not isinstance(given, Mapping):
        raise CallError(f"expected inputs as a mapping of names to tensors, got {type(given).__name__}")
    named = given or {}
    if len(named) != len(declared):
        raise CallError(_names(declared, named))
    found: list[Tensor] = []
    for decl in declared:
        if decl.name not in named:
            raise CallError(_names(declared, named))
        pair = _tensors(decl, named[decl.name], like)
        shapes = [Given(_NAMES.get(each.dtype) or dtype_name(each.dtype), tuple(each.shape)) for each in pair]
        if (problem := problem_of(decl, shapes, sizes)) is not None:
            raise CallError(problem)
        if block is not None:
            check_values(decl, pair, sizes, block)
        found += pair
    return found


def _names(declared: tuple[InputDecl, ...], given: Mapping[str, InputTensors]) -> str:
    known = [decl.name for decl in declared]
    unknown = [name for name in given if name not in known]
    missing = [name for name in known if name not in given]
    if not known:
        return f"expected no inputs, since the pattern declares none, got {_listed(map(str, unknown))}"
    expected = f"expected the inputs that the pattern declares, {_listed(known)}"
    if not unknown:
        return f"{expected}; got none called {_listed(missing)}"
    close = get_close_matches(str(unknown[0])[:64], missing or known, n=1)
    meant = f": did you mean {close[0]!r}?" if close else ""
    return f"{expected}; got one called {str(unknown[0])!r:.80}{meant}"


def _listed(names: object) -> str:
    return ", ".join(repr(name) for name in names)  # type: ignore[attr-defined]  # an iterable of names


def _tensors(decl: InputDecl, given: object, like: Tensor) -> tuple[Tensor, ...]:
    """One tensor or two, on the device of `like`."""
    if isinstance(given, Tensor) and given.device == like.device and given.layout is torch.strided:
        return (given,)
    pair = tuple(given) if isinstance(given, tuple | list) else (given,)
    found = tuple(each for each in pair if isinstance(each, Tensor))
    if len(found) != len(pair) or not 1 <= len(pair) <= 2:
        got = " and ".join(type(each).__name__ for each in pair) or "nothing"
        raise CallError(f"expected input {decl.name!r} as a tensor or a pair of tensors, got {got:.80}")
    for each in found:
        if each.device != like.device:
            raise CallError(f"expected input {decl.name!r} on {like.device} like q, got {each.device}")
        if each.layout is not torch.strided:
            raise CallError(f"expected input {decl.name!r} as a dense tensor, got one of {each.layout}")
    return found
