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
from sparsec.sema.modifiers import KINDS, Modifier, part_of

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
class Window:
    """-ahead <= d < n, d = i - j (tokens) or qb - kb (blocks). ahead is None when the source gives none (then 0)."""

    n: int
    ahead: int
    blocks: bool


@dataclass(frozen=True, slots=True)
class Sink:
    """j < n, or kb < n."""

    n: int
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
    """0 <= i // n - j // n <= back; n in tokens (a block length is n*B already)."""

    n: int
    back: int


@dataclass(frozen=True, slots=True)
class Edge:
    """One end of a range: `at` if it counts from the start, `Nk + at` (blocks: ceil(Nk / B) + at) if `from_end`."""

    at: int
    from_end: bool


@dataclass(frozen=True, slots=True)
class Columns:
    """start <= x < stop with x = j or kb; an open end is None."""

    start: Edge | None
    stop: Edge | None
    blocks: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """start <= x < stop with x = i or qb; negative bounds count back from Nk, as for columns."""

    start: Edge | None
    stop: Edge | None
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
    """A term whose keys the caller lists at run time; `ordinal` indexes Pattern.inputs."""

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


Leaf = Full | Nothing | Causal | Window | Sink | Stride | Dilated | Chunk | Columns | Rows | Global | Random | Input
Term = Leaf | Union | Intersection | Difference | Complement | At


class InputKind(Enum):
    LENGTH = "length"
    COLUMNS = "columns"
    SLASHES = "slashes"
    BLOCKS = "blocks"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class InputDecl:
    """A declared run-time input; `line` and `column` are where the source declares it."""

    name: str
    kind: InputKind
    line: int
    column: int


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
