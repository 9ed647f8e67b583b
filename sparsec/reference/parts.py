"""The inputs of a call -> those of a call of some of its queries and keys.

Invariant: pair by pair they say the same. Lists, lengths and tiles name absolute positions, so they stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from sparsec.sema.inputs import settled
from sparsec.sema.model import InputDecl, InputKind, ResolvedPattern
from sparsec.sema.shapes import tile_of

InputTensors = Tensor | tuple[Tensor, Tensor]


def heads_given(declared: Sequence[InputDecl], given: Mapping[str, InputTensors]) -> int:
    """The greatest X of the inputs' tensors: KV heads or query heads, or 1 where no tensor differs between heads."""
    bare = {InputKind.LENGTH: 1, InputKind.TOKENS: 2, InputKind.TREE: 2}  # axes of a tensor without X
    found = [1]
    for decl in declared:
        value = given.get(decl.name, ())
        for tensor in value if isinstance(value, tuple) else (value,):
            found.append(1 if tensor.dim() == bare.get(decl.kind) else tensor.shape[1])
    return max(found)


def inputs_of_part(
    pattern: ResolvedPattern,
    given: Mapping[str, InputTensors],
    *,
    queries: tuple[int, int],
    keys: tuple[int, int],
    start: int = 0,
) -> dict[str, InputTensors]:
    """`queries` and `keys`, half-open: rows of the whole call, whose query 0 is at `start`.

    A tree's drafts are the last of the part's keys, and at most as many as these.
    """
    rows, columns = slice(*queries), slice(*keys)
    found: dict[str, InputTensors] = {}
    for decl in settled(pattern.inputs, pattern.block):
        value = given[decl.name]
        pair: tuple[Tensor, ...] = value if isinstance(value, tuple) else (value,)
        match decl.kind:
            case InputKind.ROWS:
                found[decl.name] = pair[0][:, :, rows]
            case InputKind.TOKENS | InputKind.WEIGHTS:
                found[decl.name] = pair[0][..., columns]
            case InputKind.LABELS:
                found[decl.name] = pair[0][..., rows], pair[-1][..., columns]
            case InputKind.BLOCKS:
                m = tile_of(decl)[0]
                first, last = (start + queries[0]) // m - start // m, (start + queries[1] - 1) // m - start // m
                cut: tuple[Tensor, ...] = tuple(tensor[:, :, first : last + 1] for tensor in pair)
                found[decl.name] = cut[0] if len(cut) == 1 else (cut[0], cut[-1])
            case InputKind.TREE:
                found[decl.name] = pair[0][:, : keys[1]]
            case InputKind.LENGTH | InputKind.COLUMNS | InputKind.SLASHES:
                found[decl.name] = value
    return found
