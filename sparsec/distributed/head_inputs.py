"""Tensors of inputs on ranks that share heads -> those of all tokens of their part, for the heads of one rank.

Invariant: what a rank gives of queries, keys and tiles is of its own tokens; what it gets is of its own heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError
from sparsec.distributed.exchange import on_every_rank
from sparsec.distributed.held import HeldTokens, tiles_in
from sparsec.distributed.inputs import Given, InputTensors, check_tile_rows, given_as, tensors_of
from sparsec.distributed.needs import Range
from sparsec.sema.model import InputDecl
from sparsec.sema.shapes import Given as GivenShape
from sparsec.sema.shapes import TensorForm, form_of, tile_of

Spans = tuple[Range, Range]
"""Of a rank: its query heads, and its KV groups."""


def of_all_tokens(
    inputs: Sequence[InputDecl], given: Mapping[str, InputTensors], held: HeldTokens, part: Sequence[Range]
) -> Given:
    """The tensors for all tokens of the ranks that share heads. `part`: the chunks of these. Raises CallError."""
    first = held.rank - held.share
    sharers = held.chunks_of[first : first + held.sharing]
    found: Given = {}
    for decl in inputs:
        tensors = []
        for each, form in _with_forms(decl, given[decl.name]):
            for axis, what in enumerate(form.axes):
                if what in ("Nq", "Nk"):
                    if each.shape[axis] != held.tokens:
                        raise CallError(
                            f"expected input {decl.name!r} with this rank's {held.tokens} tokens along dimension "
                            f"{axis}, got {list(each.shape)}"
                        )
                    each = _gathered(each, axis, held.sharers, held)
                elif what == "Qb":
                    check_tile_rows(decl, each, held.chunks)
                    each = _tiles(each, axis, tile_of(decl)[0], (sharers, part), held)
            tensors.append(each)
        found[decl.name] = given_as(tensors)
    return found


def of_own_heads(inputs: Sequence[InputDecl], given: Mapping[str, InputTensors], counts: Range, spans: Spans) -> Given:
    """The tensors of a rank's heads; `counts`: all query heads, and all KV groups."""
    found: Given = {}
    for decl in inputs:
        tensors = []
        for each, form in _with_forms(decl, given[decl.name]):
            if "X" in form.axes and each.shape[1] > 1:
                first, last = spans[0 if each.shape[1] == counts[0] else 1]
                each = each[:, first:last]
            tensors.append(each)
        found[decl.name] = given_as(tensors)
    return found


def _with_forms(decl: InputDecl, given: InputTensors) -> list[tuple[Tensor, TensorForm]]:
    """Raises CallError for what is no tensor of the input, whose shapes are not looked at."""
    pair = tensors_of(given)
    tensors = [each for each in pair if isinstance(each, Tensor)]
    shapes = [GivenShape("", tuple(each.shape)) for each in tensors]
    form = form_of(decl, shapes) if len(tensors) == len(pair) else None
    if form is None:
        got = " and ".join(map(str, (list(shape.shape) for shape in shapes))) or type(given).__name__
        raise CallError(f"expected the tensors of input {decl.name!r} of kind {decl.kind.value}, got {got}")
    return list(zip(tensors, form, strict=True))


def _gathered(x: Tensor, axis: int, counts: Sequence[int], held: HeldTokens) -> Tensor:
    return on_every_rank(x.movedim(axis, 0), counts, held.share, held.sharing_group).movedim(0, axis)


def _tiles(
    x: Tensor, axis: int, tile: int, chunks: tuple[Sequence[Sequence[Range]], Sequence[Range]], held: HeldTokens
) -> Tensor:
    """The rows of tiles that the chunks of the part touch; of a row that several ranks have, the first one's."""
    sharers, part = chunks
    counts, places = list[int](), dict[tuple[int, int], int]()
    for of_rank in sharers:
        before = sum(counts)
        at = before
        for chunk in of_rank:
            number = next((n for n, whole in enumerate(part) if whole[0] <= chunk[0] < whole[1]), 0)
            for row in range(tiles_in(chunk, tile)):
                places.setdefault((number, chunk[0] // tile + row), at)
                at += 1
        counts.append(at - before)
    rows = [places[n, whole[0] // tile + row] for n, whole in enumerate(part) for row in range(tiles_in(whole, tile))]
    return _gathered(x, axis, counts, held).index_select(axis, torch.tensor(rows, device=x.device))
