"""What a solver supposes that inputs say of a pair and its tile -> contents of their tensors that say so, in words too.

Invariant: whether a pair passes follows from the contents alone, as `sema.model.InputKind` has it; the solver's word
only chooses among contents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product

from sparsec.ir.bands.band import Asks, InputTest
from sparsec.ir.bands.lower import test_of_input
from sparsec.ir.expr.nodes import Extent
from sparsec.ir.tiles.interpreter import Positions
from sparsec.sema.model import InputDecl, InputKind, InputUnit
from sparsec.sema.printer import head_ranges

Said = Callable[[InputTest, Extent], bool]
"""Whether the pair at hand passes a test, or some or every pair of its tile."""
Entries = frozenset[tuple[int, ...]]
_NONE: Entries = frozenset()
_LENGTHS = (Asks.KEY_BELOW, Asks.QUERY_BELOW, Asks.NEAR)


def asks_of(test: InputTest) -> str:
    """How `meaning.Pair` asks it."""
    return test.asks.value if test.asks in _LENGTHS else "pair"


def tests_of(decl: InputDecl, ordinal: int, block: int) -> tuple[InputTest, ...]:
    """All that terms may ask an input."""
    match decl.kind:
        case InputKind.LENGTH:
            return tuple(InputTest(ordinal, asks) for asks in _LENGTHS)
        case InputKind.WEIGHTS:
            return ()
        case _:
            return (test_of_input(decl, ordinal, block),)


@dataclass(frozen=True, slots=True)
class Content:
    """Of one input: the entries of its lists, or the marked places; of a length its value, of a tree how many tokens it
    has, all of them roots; labels are 0 at (0, query) and (1, key), elsewhere -1."""

    entries: Entries = _NONE
    number: int = 0


@dataclass(frozen=True, slots=True)
class TiledPair:
    """A pair, and the queries and keys of the tile that holds it."""

    i: int
    j: int
    n_keys: int
    queries: Positions
    keys: Positions


@dataclass(frozen=True, slots=True)
class Supposed:
    """The inputs of a pattern with blocks of `block`, and what a call gives for some; for others it gives nothing."""

    declared: tuple[InputDecl, ...]
    block: int
    contents: Mapping[int, Content] = field(default_factory=dict)

    def passes(self, test: InputTest, i: int, j: int, n_keys: int) -> bool:
        return _passes(test, self.contents.get(test.ordinal, Content()), i, j, n_keys)

    def of_tile(self, test: InputTest, scope: Extent, queries: Positions, keys: Positions, n_keys: int) -> bool:
        pairs = product(range(*queries), range(*keys))
        return (any if scope is Extent.SOME else all)(self.passes(test, i, j, n_keys) for i, j in pairs)

    def says(self, ordinal: int, asks: str, i: int, j: int, n_keys: int) -> bool:
        """What `meaning.Pair` asks: the term of an input, or how a length compares."""
        tests = tests_of(self.declared[ordinal], ordinal, self.block)
        return any(asks_of(test) == asks and self.passes(test, i, j, n_keys) for test in tests)

    def told(self, tests: tuple[InputTest, ...], said: Said, at: TiledPair) -> Supposed:
        """With contents that answer the tests as said, as far as some do."""
        found = {}
        for ordinal in sorted({test.ordinal for test in tests if test.asks is not Asks.KEPT}):
            own = [test for test in tests if test.ordinal == ordinal and test.asks is not Asks.KEPT]
            found[ordinal] = max(_candidates(own[0], at), key=lambda each: _answered(own, each, said, at))
        return replace(self, contents=found)

    def least(self, tests: tuple[InputTest, ...], at: TiledPair, fails: Callable[[Supposed], bool]) -> Supposed:
        """With less in each input, as long as a claim that fails does so still."""
        best = self
        for test in tests:
            for each in _candidates(test, at):
                if each == best.contents.get(test.ordinal):
                    break
                less = replace(best, contents={**best.contents, test.ordinal: each})
                if fails(less):
                    best = less
                    break
        return best

    def lines(self) -> tuple[str, ...]:
        """The contents, a line each."""
        return tuple(_line(self.declared[n], content) for n, content in sorted(self.contents.items()))


def _passes(test: InputTest, content: Content, i: int, j: int, n_keys: int) -> bool:
    match test.asks:
        case Asks.KEPT:  # a cache's lists have every key that is asked for
            return True
        case Asks.KEY_BELOW:
            return j < content.number
        case Asks.QUERY_BELOW:
            return i < content.number
        case Asks.NEAR:
            return i - j < content.number != 0
        case Asks.ANCESTOR:
            return j < n_keys - content.number or i == j
        case Asks.SLASH_TILE:
            least = i // test.height * test.height - j
            return any(least <= listed < least + test.height for (listed,) in content.entries)
        case _:
            return content.entries >= _entries(test, i, j)


def _entries(test: InputTest, i: int, j: int) -> Entries:
    """Those by which the pair passes."""
    match test.asks:
        case Asks.MARKED | Asks.KEPT_MARK | Asks.COLUMN:
            return frozenset({(j // test.width,)})
        case Asks.SLASH:
            return frozenset({(i // test.height - j // test.width,)})
        case Asks.SLASH_TILE:
            return frozenset({(i // test.height * test.height - j,)})
        case Asks.ROW | Asks.CELL:
            return frozenset({(i // test.height, j // test.width)})
        case Asks.LABEL:
            return frozenset({(0, i), (1, j)})
    raise AssertionError(f"{test.asks} has a number")


def _candidates(test: InputTest, at: TiledPair) -> Iterator[Content]:
    """Contents near the pair, the least first."""
    i, j, (first_key, past_key) = at.i, at.j, at.keys
    if test.asks in (*_LENGTHS, Asks.ANCESTOR):
        ends = {0, i, i + 1, j, j + 1, i - j, i - j + 1, first_key, past_key, at.queries[1], at.queries[1] - first_key}
        if test.asks is Asks.ANCESTOR:
            ends = {0, *(at.n_keys - key for key in (first_key, j, j + 1, past_key))}
        yield from (Content(number=number) for number in sorted(ends) if number >= 0)
        return
    own = _entries(test, i, j)
    others = [_entries(test, *pair) for pair in product(range(*at.queries), range(*at.keys))]
    apart = [each for each in others if not _passes(test, Content(each), i, j, at.n_keys)]
    rest = _NONE.union(*apart) - own
    for entries in (_NONE, own, *apart[:1], *apart[-1:], rest, own.union(*others)):
        there = test.asks is Asks.LABEL
        yield Content(frozenset(entry for entry in entries if there or entry[-1] >= 0))


def _answered(tests: list[InputTest], content: Content, said: Said, at: TiledPair) -> int:
    """How many answers are as said; that about the pair itself counts most."""
    right = 0
    for test in tests:
        right += 2 * (_passes(test, content, at.i, at.j, at.n_keys) == said(test, Extent.PAIR))
        pairs = [_passes(test, content, i, j, at.n_keys) for i, j in product(range(*at.queries), range(*at.keys))]
        right += (any(pairs) == said(test, Extent.SOME)) + (all(pairs) == said(test, Extent.EVERY))
    return right


def _line(decl: InputDecl, content: Content) -> str:
    unit = {InputUnit.TOKENS: "", InputUnit.BLOCKS: "block ", InputUnit.TILES: "tile "}[decl.unit]
    listed = [entry[-1] for entry in sorted(content.entries)]
    match decl.kind:
        case InputKind.LENGTH:
            told = str(content.number)
        case InputKind.TREE:
            told = f"the last {content.number} tokens, all roots" if content.number else "no token"
        case _ if not listed:
            told = "nothing"
        case InputKind.TOKENS:
            told = f"key {_runs(listed)}"
        case InputKind.COLUMNS:
            told = f"key {unit}{_runs(listed)}"
        case InputKind.SLASHES:
            told = f"{unit}distance {_runs(listed)}"
        case InputKind.ROWS:
            told = "; ".join(f"query {rows}: key {unit}{columns}" for rows, columns in _grouped(content.entries))
        case InputKind.LABELS:
            told = "; ".join(f"{('query', 'key')[int(of)]} {places}: 0" for of, places in _grouped(content.entries))
        case _:
            told = "; ".join(f"row {rows}: tile {columns}" for rows, columns in _grouped(content.entries))
    return f"{decl.name} ({decl.kind.value}): {told}"


def _grouped(entries: Entries) -> Iterator[tuple[str, str]]:
    """Rows of equal entries, and these."""
    of_row: dict[int, list[int]] = {}
    for row, entry in sorted(entries):
        of_row.setdefault(row, []).append(entry)
    groups: dict[str, list[int]] = {}
    for row, listed in of_row.items():
        groups.setdefault(_runs(listed), []).append(row)
    yield from ((_runs(rows), listed) for listed, rows in groups.items())


def _runs(numbers: list[int]) -> str:
    return head_ranges(tuple(numbers))
