"""The checked meaning of a pattern: per-head term trees of plain integers, with no names left.

`sema.resolve` turns a syntax tree into these; `reference.mask` evaluates them pair by pair and `ir.bands.lower` turns
them into bands. Invariant: every integer is final, each denominator is positive, each range is non-empty.

Positions are absolute: query i, key j, both token counts; `B` is the pattern's block size, qb = i // B, kb = j // B.
A term's `blocks` flag says that its lengths count blocks (and compare qb, kb) rather than tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from sparsec.diagnostics.model import InternalError
from sparsec.sema.modifiers import KINDS, KeyBias, Modifier, part_of

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a term was written: 1-based line and the term's own canonical print (never raw user text)."""

    line: int
    text: str

    def __str__(self) -> str:
        """A term's place in all output: "line 9: window(16b)"."""
        return f"line {self.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class Full:
    """All pairs."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """No pair (`none`)."""


@dataclass(frozen=True, slots=True)
class Causal:
    """j <= i."""


@dataclass(frozen=True, slots=True)
class RunTimeLength:
    """A number of tokens that the caller gives at run time; `ordinal` indexes ResolvedPattern.inputs.

    As n of a window or a sink, or as the stop of a range, 0 empties the term; what is negative counts as 0.
    """

    ordinal: int


@dataclass(frozen=True, slots=True)
class Window:
    """-ahead <= d < n, d = i - j (tokens) or qb - kb (blocks); 0 empties a run-time n's window, whatever `ahead` is."""

    n: int | RunTimeLength
    ahead: int
    blocks: bool


@dataclass(frozen=True, slots=True)
class Sink:
    """j < n, or kb < n."""

    n: int | RunTimeLength
    blocks: bool


@dataclass(frozen=True, slots=True)
class Stride:
    """x % period == phase with x = j or kb; 0 <= phase < period."""

    period: int
    phase: int
    blocks: bool


@dataclass(frozen=True, slots=True)
class Dilated:
    """d % period == phase with d = i - j or qb - kb; 0 <= phase < period."""

    period: int
    phase: int
    blocks: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """-ahead <= i // n - j // n <= back; n in tokens (a block length is n*B already)."""

    n: int
    back: int
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class Near2d:
    """|i // width - j // width| <= rows and |i % width - j % width| <= columns: near in a grid of `width` columns."""

    width: int
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Edge:
    """One end of a range: `at` if it counts from the start, `Nk + at` (blocks: ceil(Nk / B) + at) if `from_end`."""

    at: int
    from_end: bool


@dataclass(frozen=True, slots=True)
class Columns:
    """start <= x < stop with x = j or kb; an open end is None."""

    start: Edge | RunTimeLength | None
    stop: Edge | RunTimeLength | None
    blocks: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """start <= x < stop with x = i or qb; negative bounds count back from Nk, as for columns."""

    start: Edge | RunTimeLength | None
    stop: Edge | RunTimeLength | None
    blocks: bool


@dataclass(frozen=True, slots=True)
class Global:
    """x < n or y < n with x, y = i, j or qb, kb."""

    n: int
    blocks: bool


@dataclass(frozen=True, slots=True)
class Random:
    """kb is one of the draws mix(seed, lane, qb, t) % (qb + 1), t in 0..k-1 (qb >= 0; none for negative qb)."""

    k: int
    seed: int
    lane: int


@dataclass(frozen=True, slots=True)
class Input:
    """A term whose pairs the caller names at run time; `ordinal` indexes ResolvedPattern.inputs.

    Its kind is none of LENGTH and WEIGHTS.
    """

    ordinal: int


@dataclass(frozen=True, slots=True)
class Union:
    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Intersection:
    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class Complement:
    term: Term


@dataclass(frozen=True, slots=True)
class At:
    """A leaf term with its origin; means what `term` means."""

    term: Term
    origin: Origin


Leaf = (
    Full
    | Nothing
    | Causal
    | Window
    | Sink
    | Stride
    | Dilated
    | Chunk
    | Near2d
    | Columns
    | Rows
    | Global
    | Random
    | Input
)
Term = Leaf | Union | Intersection | Difference | Complement | At


class InputKind(Enum):
    """What an input holds, by its name in the language.

    Below B is the batch or 1, X is 1, the KV heads or the query heads, integers are int32 or int64, and a negative
    entry of a list, or one past the end, is absent. Each holds for the pair (i, j) as said.
    """

    LENGTH = "length"
    """int [B] or [B, X]: a RunTimeLength."""
    TOKENS = "tokens"
    """bool [B, Nk] or [B, X, Nk]: key j is marked."""
    COLUMNS = "columns"
    """int [B, X, c]: j (BLOCKS: kb) is listed."""
    SLASHES = "slashes"
    """int [B, X, c]: i - j (BLOCKS: qb - kb) is listed; TILES: qb*B - s <= j < qb*B - s + B for a listed s."""
    ROWS = "rows"
    """int [B, X, Nq, c]: j (BLOCKS: kb) is in the list of query i itself."""
    BLOCKS = "blocks"
    """bool [B, X, Qb, Kb], or (counts int [B, X, Qb], indices int [B, X, Qb, c]): the tile (i // m, j // n) is set.

    Row r is the tile row q0 // m + r.
    """
    LABELS = "labels"
    """(int [B, X, Nq], int [B, X, Nk]): the labels of i and of j are equal and not negative."""
    TREE = "tree"
    """int [B, n], the parents of the last n tokens, -1 for a root: j < Nk - n, or j is i or an ancestor of i.

    A parent that does not come before its child is none: the child is a root.
    """
    WEIGHTS = "weights"
    """float32 [B, X, Nk]: no term, but what `key_bias` adds to scores."""


class InputUnit(Enum):
    """What the entries of a list count: `columns`, `slashes`, `rows`."""

    TOKENS = "tokens"
    BLOCKS = "blocks"
    TILES = "tiles"


@dataclass(frozen=True, slots=True)
class InputDecl:
    """A declared run-time input; `line` and `column` are where the source declares it.

    `unit`: TOKENS for kinds that have no other. `tile`: (m, n) of `blocks` in tokens; None where the source leaves them
    out (then both are the pattern's block) and for other kinds.
    """

    name: str
    kind: InputKind
    line: int
    column: int
    unit: InputUnit = InputUnit.TOKENS
    tile: tuple[int, int] | None = None


class Documents(Enum):
    NONE = "none"
    SEPARATE = "documents"
    RESTART = "documents restart"


@dataclass(frozen=True, slots=True)
class Score:
    """What changes the score and never the set. `scale` None means 1/sqrt(head dim).

    `modifiers`: at most one of each kind, in the order of `modifiers.KINDS`.
    """

    scale: float | None = None
    modifiers: tuple[Modifier, ...] = ()

    def __post_init__(self) -> None:
        numbers = [KINDS.index(type(modifier)) for modifier in self.modifiers]
        if numbers != sorted(set(numbers)):
            raise InternalError(f"expected at most one modifier of each kind, in their order, got {self.modifiers}")

    def get(self, kind: type[M]) -> M | None:
        """The modifier of a kind, if there is one."""
        return next((modifier for modifier in self.modifiers if isinstance(modifier, kind)), None)

    @property
    def per_pair(self) -> bool:
        """Whether a modifier changes the score of each pair."""
        return any(modifier.entry.per_pair for modifier in self.modifiers)

    @property
    def needs_positions(self) -> bool:
        """Whether a pair's score depends on i and j, beside q and k."""
        return any(modifier.entry.needs_positions for modifier in self.modifiers)

    @property
    def learned(self) -> bool:
        """Whether a modifier has a parameter [heads], which a call passes as `sink`."""
        return any(modifier.entry.learned for modifier in self.modifiers)

    @property
    def bias(self) -> int | None:
        """The ordinal of the input that keys add to their scores, None without one."""
        biased = self.get(KeyBias)
        return None if biased is None else biased.ordinal

    def part(self, heads: int, part: slice) -> Score:
        """The score, as it is for `heads` query heads, of a part of them."""
        return replace(self, modifiers=tuple(part_of(modifier, heads, part) for modifier in self.modifiers))


@dataclass(frozen=True, slots=True)
class ResolvedPattern:
    """A pattern for known head counts: `terms[h]` is the set of query head h, `causal` already intersected.

    Equal heads share one term object. `heads` query heads, `kv_heads` KV heads, group g = h // (heads // kv_heads).
    """

    heads: int
    kv_heads: int
    terms: tuple[Term, ...]
    block: int
    inputs: tuple[InputDecl, ...]
    documents: Documents
    score: Score
