"""Checked pattern -> FlexAttention's BlockMask for given lengths: its full and its partial blocks.

Invariant: the blocks are those of `create_block_mask`. They come from the tiles of the closed form where there is one;
pairs are looked at in blocks that documents cut, a few at a time, and elsewhere in one row of blocks at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from sparsec.diagnostics.arguments import integer
from sparsec.integrations.flex.masks import MaskMod, Place, mask_mod, place_of, settled_pattern
from sparsec.integrations.flex.visited import visited_tiles
from sparsec.ir.bands.classes import equal_heads
from sparsec.pipeline import Lowered
from sparsec.plan.build import head_classes
from sparsec.program import Pattern
from sparsec.reference.parts import InputTensors, heads_given
from sparsec.sema import model
from sparsec.sema.model import Documents, ResolvedPattern
from sparsec.sema.terms import parts_of

EMPTY, PARTIAL, FULL = 0, 1, 2
"""What a block is: no pair of it is seen, some are, or all."""

HELD_PAIRS = 1 << 22
"""Pairs of the blocks that documents cut, looked at together."""


def block_mask(
    pattern: Pattern | ResolvedPattern,
    n_q: int,
    n_k: int | None = None,
    device: Place = None,
    *,
    block: int = 128,
    heads: int | None = None,
    kv_heads: int | None = None,
    cu_seqlens: Sequence[int] | None = None,
    inputs: Mapping[str, InputTensors] | None = None,
) -> BlockMask:
    """FlexAttention's BlockMask of `pattern` for n_q queries on n_k keys (as many, if left out); `block`: tokens on its
    edges, at least 16.

    It is of one head if all heads see the same, of one sequence unless `inputs` are of more, and has `mask_mod`. For
    self-attention its blocks are computed from the closed form, without looking at pairs but where documents cut a
    block: those of 131,072 tokens in seconds. Random blocks, inputs, documents that restart and other lengths are
    evaluated, one row of blocks at a time.
    The other arguments, and what is raised, as for `mask_mod`.
    """
    n_q = integer("n_q", n_q, 1)
    n_k = n_q if n_k is None else integer("n_k", n_k, 1)
    block = integer("block", block, 16)
    found = settled_pattern(pattern, heads, kv_heads, whatever=not (isinstance(pattern, Pattern) and pattern.inputs))
    where = place_of(device)
    live = mask_mod(found, n_q, n_k, where, cu_seqlens=cu_seqlens, inputs=inputs)
    tensors = [t for value in (inputs or {}).values() for t in (value if isinstance(value, tuple) else (value,))]
    batch = max(map(len, tensors), default=1)
    alike = len(set(found.terms)) == 1 and heads_given(found.inputs, inputs or {}) == 1
    if n_q == n_k and block & (block - 1) == 0 and _in_closed_form(found):
        kinds = _kinds(found, n_q, block, 1 if alike else found.heads)
        if cu_seqlens is not None:
            kinds = _within(kinds, cu_seqlens, block, live, where)
        made = torch.from_numpy(kinds)[None]
    else:
        made = _evaluated(live, (batch, 1 if alike else found.heads, n_q, n_k), block, where)
    partial, full = (_listed(made == kind, where) for kind in (PARTIAL, FULL))
    return BlockMask.from_kv_blocks(*partial, *full, BLOCK_SIZE=block, mask_mod=live, seq_lengths=(n_q, n_k))


def _in_closed_form(pattern: ResolvedPattern) -> bool:
    if pattern.inputs or pattern.documents is Documents.RESTART:
        return False
    return not any(_draws_blocks(term) for term in set(pattern.terms))


def _draws_blocks(term: model.Term) -> bool:
    return isinstance(term, model.Random) or any(map(_draws_blocks, parts_of(term)))


def _kinds(pattern: ResolvedPattern, length: int, block: int, heads: int) -> np.ndarray:
    """int8 [heads, blocks, blocks], documents aside, from the tiles that each tile of queries visits."""
    blocks = -(-length // block)
    found = np.zeros((heads, blocks, blocks), np.int8)
    for head_class in head_classes(Lowered(pattern).mask, block, block):
        program = head_class.program
        tall, wide = block // program.query_tile, block // program.key_tile
        for members, constants in equal_heads(head_class.heads, head_class.constants):
            own = [head for head in members if head < heads]
            if not own:
                continue
            for row in range(blocks):
                some, every = np.zeros(blocks * wide, np.int64), np.zeros(blocks * wide, np.int64)
                for tile in range(row * tall, min((row + 1) * tall, -(-length // program.query_tile))):
                    full, partial = visited_tiles(program, constants, tile, length)
                    some[full] += 1
                    some[partial] += 1
                    every[full] += 1
                whole = (every == tall).reshape(blocks, wide).all(1) & ((row + 1) * block <= length)
                kinds = np.where(whole, FULL, np.where(some.reshape(blocks, wide).any(1), PARTIAL, EMPTY))
                found[own, row] = kinds
    return found


def _within(
    kinds: np.ndarray, cu_seqlens: Sequence[int], block: int, live: MaskMod, device: torch.device
) -> np.ndarray:
    """The blocks where documents cut them: between two documents no pair is seen; in a block of several, `live` says
    whether any is."""
    length = cu_seqlens[-1]
    starts = np.arange(0, length, block)
    bounds = np.asarray(cu_seqlens)
    first = np.searchsorted(bounds, starts, side="right")
    last = np.searchsorted(bounds, np.minimum(starts + block, length) - 1, side="right")
    apart = (last[:, None] < first[None, :]) | (last[None, :] < first[:, None])
    mixed = (first != last)[:, None] | (first != last)[None, :]
    found = np.where(apart, EMPTY, kinds).astype(np.int8)
    tokens, some = torch.arange(block, device=device), max(HELD_PAIRS // block**2, 1)
    for head, of_head in enumerate(found):
        place = torch.tensor(0, device=device), torch.tensor(head, device=device)
        row, column = np.nonzero(mixed & (of_head != EMPTY))
        for at in range(0, len(row), some):
            here = row[at : at + some], column[at : at + some]
            # What is past the last position is a repetition of it.
            i, j = ((torch.from_numpy(x * block).to(device)[:, None] + tokens).clamp(max=length - 1) for x in here)
            seen = live(*place, i[:, :, None], j[:, None, :]).expand(len(i), block, block)
            of_head[here] = np.where(seen.any(2).any(1).cpu().numpy(), PARTIAL, EMPTY)
    return found


def _evaluated(live: MaskMod, shape: tuple[int, int, int, int], block: int, device: torch.device) -> Tensor:
    """int8 [batch, heads, query blocks, key blocks], on `device`."""
    batch, heads, n_q, n_k = shape
    columns = -(-n_k // block)
    made = torch.zeros((batch, heads, -(-n_q // block), columns), dtype=torch.int8, device=device)
    keys = torch.arange(n_k, device=device)[None, :]
    for b in range(batch):
        for h in range(heads):
            place = torch.tensor(b, device=device), torch.tensor(h, device=device)
            for row in range(made.shape[2]):
                queries = torch.arange(row * block, min((row + 1) * block, n_q), device=device)[:, None]
                pairs = live(*place, queries, keys).expand(len(queries), n_k).sum(0)
                counts = torch.nn.functional.pad(pairs, (0, columns * block - n_k)).view(columns, block).sum(1)
                made[b, h, row] = (counts > 0).to(torch.int8) + (counts == block * block)
    return made


def _listed(chosen: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Counts int32 [..., rows] and indices int32 [..., rows, columns]: the chosen columns of each row come first."""
    order = chosen.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return chosen.sum(-1).to(device, torch.int32), order.to(device, torch.int32)
