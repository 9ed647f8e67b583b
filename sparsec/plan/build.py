"""Block mask -> kernel plan: fits the tiles to the pattern and projects each head class.

Invariant: nothing here depends on a sequence length or a batch size.
"""

from __future__ import annotations

from dataclasses import replace

from sparsec.diagnostics.model import SparsecError
from sparsec.ir.bands.band import Asks
from sparsec.ir.bands.classes import BandClass, BlockMask, HeadBands, grouped_mask
from sparsec.ir.bands.normalise import TooManyBandsTogether
from sparsec.ir.expr.nodes import TRUE, Var
from sparsec.ir.tiles.limits import limits_of
from sparsec.ir.tiles.listed import lane_rows
from sparsec.ir.tiles.program import TileProgram
from sparsec.ir.tiles.project import project, project_transposed
from sparsec.plan.kernel import BackwardPlan, HeadClass, KernelPlan
from sparsec.plan.target import LEAST_TILE, LIGHT_MASKED
from sparsec.sema.model import Documents, ResolvedPattern

CLASS_LIMIT = 64
"""The largest number of head classes: each is a kernel of its own in the generated source."""
TOGETHER_LIMIT = 512
"""The largest number of bands of all head classes: what a plan costs, and its source, grows with it."""


class TooManyClasses(SparsecError):
    """The heads of a pattern are of `classes` kinds, more than CLASS_LIMIT kernels can serve."""

    def __init__(self, classes: int) -> None:
        super().__init__(f"expected at most {CLASS_LIMIT} kinds of heads, got {classes}")
        self.classes = classes


def limited_mask(bands: HeadBands, block: int, *, transposed: bool = False) -> BlockMask:
    """The block mask of heads with these bands. Raises TooManyBandsTogether or TooManyClasses."""
    mask = grouped_mask(bands, block, transposed=transposed)
    if len(mask.classes) > CLASS_LIMIT:
        raise TooManyClasses(len(mask.classes))
    together = sum(len(band_class.bands) for band_class in mask.classes)
    if together > TOGETHER_LIMIT:
        raise TooManyBandsTogether(
            f"expected at most {TOGETHER_LIMIT} bands in all kinds of heads together, got {together}"
        )
    return mask


def plan_kernels(
    pattern: ResolvedPattern,
    mask: BlockMask,
    *,
    head_dim: int,
    value_dim: int | None = None,
    dtype: str,
    query_tile: int,
    key_tile: int,
    gathers_columns: bool = False,
) -> KernelPlan:
    """The forward plan of `pattern`, with tiles of at most the given sizes (powers of two); value_dim: as head_dim, if
    left out; gathers_columns, here and below: as of `ir.tiles.project`."""
    return KernelPlan(
        pattern.heads,
        pattern.kv_heads,
        head_dim,
        head_dim if value_dim is None else value_dim,
        dtype,
        pattern.score,
        head_classes(
            mask,
            query_tile,
            key_tile,
            in_document=pattern.documents is Documents.SEPARATE,
            gathers_columns=gathers_columns,
        ),
        pattern.documents,
        pattern.inputs,
    )


def plan_backward(
    pattern: ResolvedPattern,
    mask: BlockMask,
    transposed: BlockMask,
    *,
    head_dim: int,
    value_dim: int | None = None,
    dtype: str,
    query_tile: int,
    key_tile: int,
    transposed_tiles: tuple[int, int] | None = None,
    gathers_columns: bool = False,
) -> BackwardPlan:
    """The plan of the gradients, with tiles of at most the given sizes.

    `transposed_tiles`: query and key tile of the gradients of keys and values; None: as for the queries'.
    """
    forward = plan_kernels(
        pattern,
        mask,
        head_dim=head_dim,
        value_dim=value_dim,
        dtype=dtype,
        query_tile=query_tile,
        key_tile=key_tile,
        gathers_columns=gathers_columns,
    )
    tiles = fitting_tiles(mask, *(transposed_tiles or (query_tile, key_tile)))
    return BackwardPlan(
        forward,
        tuple(
            replace(
                head_class_of(band_class, project_transposed(band_class, *tiles, gathers_columns=gathers_columns)),
                long=not all(band.lower and band.upper for band in band_class.bands),
            )
            for band_class in transposed.classes
        ),
    )


def head_classes(
    mask: BlockMask, query_tile: int, key_tile: int, *, in_document: bool = False, gathers_columns: bool = False
) -> tuple[HeadClass, ...]:
    """Each class of the mask with its tile program, of tiles of at most the given sizes."""
    tiles = fitting_tiles(mask, query_tile, key_tile)
    form = {"in_document": in_document, "gathers_columns": gathers_columns}
    return tuple(head_class_of(band_class, project(band_class, *tiles, **form)) for band_class in mask.classes)


def head_class_of(band_class: BandClass, program: TileProgram) -> HeadClass:
    """A band class with its program, and the rows of its tables of draws among its constants."""
    return HeadClass(
        band_class.heads,
        (*band_class.constants, *lane_rows(band_class)),
        program,
        tuple(dict.fromkeys(band.origin for band in band_class.bands)),
        light=len(program.full) > 0 and len(program.masked) <= LIGHT_MASKED and _few_limits(program),
    )


def _few_limits(program: TileProgram) -> bool:
    """Whether a masked tile holds one limit of a row, or words of its columns, and asks no input."""
    limits = limits_of(program.live, TRUE, Var("j"), program.key_tile)
    one = not limits.parts and (limits.common.lower is None or limits.common.upper is None)
    return (one or limits.intervals) and not program.inputs


def fitting_tiles(mask: BlockMask, query_tile: int, key_tile: int) -> tuple[int, int]:
    """The largest tiles within the given sizes that the pattern's blocks allow.

    A key tile no larger than a strided block is full or dead, never partial; a query tile within one block sees one
    phase of a moving stride; a random term's tile must lie within one block on both sides; one of a cell that is set
    is full.
    """
    for band in (band for band_class in mask.classes for band in band_class.bands):
        for congruence in band.congruences:
            if congruence.unit > 1:
                key_tile = min(key_tile, congruence.unit)
                if congruence.moving:
                    query_tile = min(query_tile, congruence.unit)
        for test in band.lists:
            query_tile, key_tile = min(query_tile, test.draws.block), min(key_tile, test.draws.block)
        for asked in band.inputs:
            if asked.asks is Asks.CELL:
                query_tile, key_tile = _within_cell(query_tile, asked.height), _within_cell(key_tile, asked.width)
    return query_tile, key_tile


def _within_cell(tile: int, cell: int) -> int:
    """The largest tile within `tile` that lies in one cell wherever it is; `tile` for less than LEAST_TILE."""
    fitting = min(tile, cell & -cell)
    return fitting if fitting >= LEAST_TILE else tile
