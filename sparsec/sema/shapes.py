"""Which tensors an input of each kind takes: their dtypes and axes, and what is wrong with those that a call gives.

Invariant: tensors that `problem_of` accepts have, for each pair of the call, the element that its formula reads; it
looks at shapes and names of dtypes, never at values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sparsec.sema.inputs import kind_text
from sparsec.sema.model import InputDecl, InputKind

INTEGERS, MARKS, WEIGHTS = ("int32", "int64"), ("bool",), ("float32",)


@dataclass(frozen=True, slots=True)
class TensorForm:
    """One tensor: the dtypes that it may have, and its axes by the names of `sema.model.InputKind`."""

    dtypes: tuple[str, ...]
    axes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{' or '.join(self.dtypes)} [{', '.join(self.axes)}]"


_LIST = (TensorForm(INTEGERS, ("B", "X", "c")),)
FORMS: dict[InputKind, tuple[tuple[TensorForm, ...], ...]] = {
    InputKind.LENGTH: ((TensorForm(INTEGERS, ("B",)),), (TensorForm(INTEGERS, ("B", "X")),)),
    InputKind.TOKENS: ((TensorForm(MARKS, ("B", "Nk")),), (TensorForm(MARKS, ("B", "X", "Nk")),)),
    InputKind.COLUMNS: (_LIST,),
    InputKind.SLASHES: (_LIST,),
    InputKind.ROWS: ((TensorForm(INTEGERS, ("B", "X", "Nq", "c")),),),
    InputKind.BLOCKS: (
        (TensorForm(MARKS, ("B", "X", "Qb", "Kb")),),
        (TensorForm(INTEGERS, ("B", "X", "Qb")), TensorForm(INTEGERS, ("B", "X", "Qb", "c"))),
    ),
    InputKind.LABELS: ((TensorForm(INTEGERS, ("B", "X", "Nq")), TensorForm(INTEGERS, ("B", "X", "Nk"))),),
    InputKind.TREE: ((TensorForm(INTEGERS, ("B", "n")),),),
    InputKind.WEIGHTS: ((TensorForm(WEIGHTS, ("B", "X", "Nk")),),),
}
"""By kind, the ways to give it: one tensor, or a pair."""


class Sizes(NamedTuple):
    """Of a call, which gives `new_keys` of its `n_k` keys. What is None is not known, and everything will do.

    `packed`: `batch` sequences have their queries in one row of `n_q`, so that what speaks of single queries has a B of
    1; how many of them are a sequence's is not known, and neither are its keys.
    """

    batch: int | None
    heads: int
    kv_heads: int
    n_q: int
    new_keys: int
    n_k: int | None
    q_offset: int | None
    packed: bool = False


class Given(NamedTuple):
    """A tensor of a call: the name of its dtype, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def form_of(decl: InputDecl, given: Sequence[Given]) -> tuple[TensorForm, ...] | None:
    """The way in which the tensors are given, by their number and their axes."""
    axes = [len(tensor.shape) for tensor in given]
    for form in FORMS[decl.kind]:
        if [len(tensor.axes) for tensor in form] == axes:
            return form
    return None


def problem_of(decl: InputDecl, given: Sequence[Given], sizes: Sizes) -> str | None:
    """Expected and got, if the tensors are not what the input, settled, takes."""
    form = form_of(decl, given)
    if form is not None and _fit(form, decl, given, sizes):
        return None
    shown = [form] if form is not None else FORMS[decl.kind]
    expected = ", or ".join(_written(each) for each in shown)
    axes = dict.fromkeys(axis for each in shown for tensor in each for axis in tensor.axes)
    facts = ", ".join(fact for axis in axes if (fact := _fact(axis, decl, sizes)))
    got = " and ".join(map(str, given))
    kind = kind_text(decl.kind, decl.unit, decl.tile)
    return f"expected input {decl.name!r} ({kind}) as {expected}{f', where {facts}' if facts else ''}; got {got}"


def _fit(form: tuple[TensorForm, ...], decl: InputDecl, given: Sequence[Given], sizes: Sizes) -> bool:
    """In plain loops, for a step of decoding is short enough to feel a slow answer."""
    for tensor, own in zip(form, given, strict=True):
        if own.dtype not in tensor.dtypes:
            return False
        of = sizes._replace(batch=1) if sizes.packed and "Nq" in tensor.axes else sizes
        for axis, size in zip(tensor.axes, own.shape, strict=True):
            if not _fits(axis, size, decl, of):
                return False
    return len(given) == 1 or decl.kind is not InputKind.BLOCKS or given[0].shape == given[1].shape[:3]


def _written(form: tuple[TensorForm, ...]) -> str:
    return str(form[0]) if len(form) == 1 else f"a pair ({'; '.join(map(str, form))})"


def tile_of(decl: InputDecl) -> tuple[int, int]:
    """(m, n) of a settled input of kind `blocks`."""
    assert decl.tile is not None, "a settled input of kind `blocks` has a tile"
    return decl.tile


def tile_rows(decl: InputDecl, sizes: Sizes) -> int:
    """How many rows of tiles the queries of the call touch; where their offset is not known, at least."""
    m, _ = tile_of(decl)
    if sizes.packed:
        return min(sizes.n_q, 1)
    offset = sizes.q_offset or 0
    return (offset + sizes.n_q - 1) // m - offset // m + 1 if sizes.n_q else 0


def tile_columns(decl: InputDecl, sizes: Sizes) -> int:
    """How many columns of tiles the keys touch; where their number is not known, at least."""
    return -(-(sizes.new_keys if sizes.n_k is None else sizes.n_k) // tile_of(decl)[1])


def _fits(axis: str, size: int, decl: InputDecl, sizes: Sizes) -> bool:
    match axis:
        case "B":
            return size == 1 or sizes.batch is None or size == sizes.batch
        case "X":
            return size in (1, sizes.kv_heads, sizes.heads)
        case "Nq":
            return size == sizes.n_q
        case "Nk":
            return sizes.packed or size == sizes.new_keys
        case "Qb":
            return size >= tile_rows(decl, sizes)
        case "Kb":
            return size >= tile_columns(decl, sizes)
        case "n":
            return sizes.n_k is None or size <= sizes.n_k
        case _:
            return True


def _fact(axis: str, decl: InputDecl, sizes: Sizes) -> str:
    match axis:
        case "B":
            if sizes.batch is None:
                return ""
            return f"B is {_either((1, sizes.batch))}{', beside Nq 1' if sizes.packed else ''}"
        case "X":
            return f"X is {_either((1, sizes.kv_heads, sizes.heads))}"
        case "Nq":
            return f"Nq is {sizes.n_q}"
        case "Nk":
            return "" if sizes.packed else f"Nk is {sizes.new_keys}"
        case "Qb":
            return f"Qb is at least {tile_rows(decl, sizes)}"
        case "Kb":
            return f"Kb is at least {tile_columns(decl, sizes)}"
        case "n":
            return "" if sizes.n_k is None else f"n is at most {sizes.n_k}"
        case _:
            return ""


def _either(numbers: Sequence[int]) -> str:
    return " or ".join(str(number) for number in dict.fromkeys(numbers))
