"""The kernel plan: everything a template prints, decided. Pure data; targets differ only in tile sizes and schedule.

Invariant: heads of all classes are exactly 0..heads-1, each once; `constants[name][n]` belongs to `heads[n]`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.ir.bands.band import InputTest
from sparsec.ir.expr.fold import picks_in
from sparsec.ir.tiles.program import TileProgram
from sparsec.plan.picks import Tiles
from sparsec.sema.model import Documents, InputDecl, Score


@dataclass(frozen=True, slots=True)
class HeadClass:
    """Query heads whose bands are equal up to the head constants; one tile program serves them all.

    `light`: the program has a loop of full tiles and few masked segments, whose bounds take few registers. `long`: of a
    transposed program, some key tile's query tiles are the more, the more queries there are.
    """

    heads: tuple[int, ...]
    constants: tuple[tuple[str, tuple[int, ...]], ...]
    program: TileProgram
    origins: tuple[str, ...]
    light: bool = False
    long: bool = False


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """Forward attention of one pattern; dtype float32, bfloat16 or float16.

    Queries and keys have `head_dim` numbers, values and outputs `value_dim`.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    dtype: str
    score: Score
    classes: tuple[HeadClass, ...]
    documents: Documents = Documents.NONE
    """SEPARATE: the programs read `begin` and `end`, the document's first key and one past its last, and a query tile
    holds rows of one document. RESTART: the same, with i, j and nk counted within the document, so begin is 0."""
    declared: tuple[InputDecl, ...] = ()
    """The inputs of the pattern."""
    tiles: Tiles = ()
    """What its tiles, and how it is compiled for them, were chosen by before all tables."""

    @property
    def share(self) -> int:
        """Query heads of a KV group."""
        return self.heads // self.kv_heads

    @property
    def inputs(self) -> tuple[InputTest, ...]:
        """What the classes ask inputs, each once: a call looks them up in this order."""
        return tuple(dict.fromkeys(test for each in self.classes for test in each.program.inputs))

    @property
    def gathers(self) -> bool:
        """Whether rows list keys of their own."""
        return any(gather.reach is None for of in self.classes for gather in of.program.gathers)

    @property
    def columns(self) -> tuple[InputTest, ...]:
        """Those of `inputs` whose columns are gathered."""
        gathered = {
            of.program.inputs[gather.test]
            for of in self.classes
            for gather in of.program.gathers
            if gather.reach is not None
        }
        return tuple(test for test in self.inputs if test in gathered)

    def looks_up(self, test: InputTest) -> bool:
        """Whether a class asks of a pair whether it passes a test of lists of rows: else they are gathered alone.

        Where columns are gathered, gradients of keys ask it of these.
        """
        return test in self.columns or any(
            of.program.inputs[asked.ordinal] == test
            for of in self.classes
            for condition in (of.program.live, *(gather.live for gather in of.program.gathers))
            for asked in picks_in(condition)
        )

    def light(self, head_class: HeadClass) -> bool:
        """Whether a class's forward kernel needs few registers: light, and no score is changed pair by pair."""
        return head_class.light and not self.score.per_pair


@dataclass(frozen=True, slots=True)
class BackwardPlan:
    """The gradients of one pattern's attention: dk and dv by transposed tile programs, dq by the forward plan's or,
    where a kernel computes all three in one pass, by the transposed ones too.

    `forward` may have other tile sizes than the plan that computed the output. `transposed` groups the heads anew, each
    once: its programs give the query tiles of a key tile. Their inputs are j0, j1 (first and last key of the tile), nk,
    and the queries' frame: `base`, the first row of the first query tile on the absolute grid, and `begin` and `end`,
    the first and one past the last query position minus `base`. Query tile t holds positions from base + t*query_tile.
    """

    forward: KernelPlan
    transposed: tuple[HeadClass, ...]
