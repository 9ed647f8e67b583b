"""Tensors of inputs on each rank -> those of a call on one piece of its queries.

Invariant: what speaks of keys is gathered from all ranks; what speaks of queries stays where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from sparsec.diagnostics.model import CallError
from sparsec.runtime.inputs.checks import InputTensors as InputTensors
from sparsec.sema.model import InputDecl, InputKind

if TYPE_CHECKING:
    from sparsec.distributed.planning import Plan

ALIKE = (InputKind.LENGTH, InputKind.COLUMNS, InputKind.SLASHES)
"""Kinds that say the same on every rank."""
OF_ALL_KEYS = (InputKind.TOKENS, InputKind.WEIGHTS)
OF_QUERIES = (InputKind.ROWS,)
SERVED = (*ALIKE, *OF_ALL_KEYS, *OF_QUERIES, InputKind.LABELS)

Given = dict[str, InputTensors]


def check_kinds(inputs: Sequence[InputDecl]) -> None:
    """Raises CallError for a kind that is not served."""
    for decl in inputs:
        if decl.kind not in SERVED:
            served = ", ".join(kind.value for kind in SERVED)
            raise CallError(f"expected inputs of kinds {served}, got {decl.name} of kind {decl.kind.value}")


def with_keys_of_all(inputs: Sequence[InputDecl], given: Mapping[str, InputTensors] | None, plan: Plan) -> Given:
    """The tensors with what speaks of keys for the whole sequence. Raises CallError."""
    names = {decl.name for decl in inputs}
    if set(given or {}) != names:
        raise CallError(f"expected inputs {sorted(names)}, got {sorted(given or {})}")
    found: Given = {}
    for decl in inputs:
        assert given is not None
        each = given[decl.name]
        if decl.kind in OF_ALL_KEYS:
            found[decl.name] = plan.unshard(_tensor(decl, each), -1)
        elif decl.kind is InputKind.LABELS:
            of_queries, of_keys = _pair(decl, each)
            found[decl.name] = of_queries, plan.unshard(of_keys, -1)
        else:
            found[decl.name] = each
    return found


def of_sequences(inputs: Sequence[InputDecl], given: Given, rows: Sequence[int]) -> Given:
    """The tensors of these sequences of the batch."""
    found: Given = {}
    for decl in inputs:
        each = given[decl.name]
        pair = (each,) if isinstance(each, Tensor) else each
        own = tuple(of if len(of) == 1 else of[list(rows)] for of in pair)
        found[decl.name] = own[0] if isinstance(each, Tensor) else (own[0], own[1])
    return found


def of_piece(inputs: Sequence[InputDecl], given: Given, rows: tuple[int, int], keys: tuple[int, int]) -> Given:
    """The tensors of a call with these of the rank's queries, on a range of keys."""
    start, count = rows[0], rows[1] - rows[0]
    seen = slice(*keys)
    found: Given = {}
    for decl in inputs:
        each = given[decl.name]
        if decl.kind in OF_ALL_KEYS:
            found[decl.name] = _tensor(decl, each)[..., seen]
        elif decl.kind is InputKind.LABELS:
            of_queries, of_keys = _pair(decl, each)
            found[decl.name] = of_queries.narrow(-1, start, count), of_keys[..., seen]
        elif decl.kind in OF_QUERIES:
            found[decl.name] = _tensor(decl, each).narrow(2, start, count)
        else:
            found[decl.name] = each
    return found


def _tensor(decl: InputDecl, given: InputTensors) -> Tensor:
    if not isinstance(given, Tensor):
        raise CallError(f"expected a tensor for input {decl.name}, got {type(given).__name__}")
    return given


def _pair(decl: InputDecl, given: InputTensors) -> tuple[Tensor, Tensor]:
    if isinstance(given, Tensor) or len(given) != 2:
        raise CallError(f"expected a pair of tensors for input {decl.name}, got {type(given).__name__}")
    return given[0], given[1]
