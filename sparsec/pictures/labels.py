"""Words and numbers beside pictures: names of heads, positions on an axis, live shares.

Invariant: equal pictures have equal labels; nothing here reads a file's own text but the names of patterns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sparsec.analysis.coverage import HeadCoverage, View, dense_pairs, of_pairs
from sparsec.diagnostics.tables import count, percent
from sparsec.sema.model import Documents, ResolvedPattern

LONG_AXIS = 4096
"""From so many positions on, those on an axis are shortened."""
_TICKS = 4
"""An axis has about so many parts."""


def runs_of(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending numbers as (first, last) of each run."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return runs


def name_members(what: str, members: Sequence[int]) -> str:
    """`head 3`, `heads 0-7`, `layers 0, 2, 4-6`."""
    shown = [f"{first}" if first == last else f"{first}-{last}" for first, last in runs_of(members)]
    if len(shown) > 6:
        shown = [*shown[:5], f"... {shown[-1]}"]
    return f"{what if len(members) == 1 else what + 's'} {', '.join(shown)}"


def name_heads(heads: tuple[int, ...]) -> str:
    """`head 3`, `heads 0-7`, `heads 0, 2, 4-6`."""
    return name_members("head", heads)


def place_text(number: int, span: int) -> str:
    """A position on an axis that spans so many: `96`, or on a long one `12k` for 12 * 1024."""
    if span < LONG_AXIS:
        return str(number)
    for power, unit in ((20, "M"), (10, "k")):
        if number and number % (1 << power) == 0:
            return f"{number >> power}{unit}"
    return str(number)


def ticks(first: int, stop: int) -> Iterator[int]:
    """Round positions on an axis of first <= x <= stop, and `stop` itself unless there is one position alone."""
    size, step = stop - first, 1
    while size > _TICKS * step:
        step *= 2
    found = [first, *(x for x in range((first // step + 1) * step, stop, step))]
    yield from (x for x in found if stop - x >= step / 2 or x == first)
    if size > 1:
        yield stop


def live_share(found: Sequence[HeadCoverage], view: View) -> tuple[float, str]:
    """The share of live pairs over the heads, and what of: causal pairs if no head looks ahead, else all pairs."""
    dense, causal = dense_pairs(found, view)
    return sum(len(head.heads) * head.live_pairs for head in found) / max(dense, 1), of_pairs(causal)


def share_text(found: Sequence[HeadCoverage], view: View) -> str:
    """`12.5%`, with `about` before an estimate."""
    share, _ = live_share(found, view)
    return ("" if all(head.exact for head in found) else "about ") + percent(share)


def live_line(found: Sequence[HeadCoverage], view: View) -> str:
    """`live: 12.5% of the causal pairs`, the mean over the heads."""
    return f"live: {share_text(found, view)} of {live_share(found, view)[1]}"


def title_of(name: str, view: View) -> str:
    """`s2: 1024 queries, 1024 keys`, and which where it is not all of them."""
    rows, columns = view.rows, view.columns
    queries, keys = count(rows[1] - rows[0], "query", "queries"), count(view.keys, "key")
    if view.whole:
        return f"{name}: {queries}, {keys}"
    at = f"at {rows[0]}" if rows[1] - rows[0] == 1 else f"{rows[0]}..{rows[1]}"
    shown = "" if columns == (0, view.keys) else f", of which {columns[0]}..{columns[1]} are shown"
    return f"{name}: {queries} {at}, {keys}{shown}"


def details_of(pattern: ResolvedPattern, view: View) -> str:
    """The sizes behind a picture: `block 64; 32 heads on 8 KV heads; 3 documents`."""
    parts = [f"block {pattern.block}", f"{count(pattern.heads, 'head')} on {count(pattern.kv_heads, 'KV head')}"]
    if pattern.documents is not Documents.NONE:
        number = max(len(view.documents) - 1, 1)
        parts.append(count(number, "document") + (", positions restart" if view.restart else ""))
    return "; ".join(parts)
