"""Warnings about an instantiated pattern, each with a witness: a query, a key, a length that show it.

A pattern is looked at on sample rows of one length, so that a warning is always true and may be missing. Invariant:
the work is bounded by MAX_ROWS row evaluations; a pattern with random or run-time terms is not sampled.
"""

from __future__ import annotations

from sparsec.diagnostics import codes_meaning as codes
from sparsec.sema import model
from sparsec.sema.checked import CheckedPattern
from sparsec.sema.lint.rows import Sample, extent, row
from sparsec.sema.model import Documents, ResolvedPattern
from sparsec.sema.resolution.instantiate import Findings
from sparsec.sema.resolution.values import Budget, Evaluator
from sparsec.sema.terms import leaves, ordinals_of

MAX_KEYS = 16384
MAX_ROWS = 12_000  # leaf rows of one pattern
ROWS = 32


def warnings_of(
    pattern: CheckedPattern, heads: ResolvedPattern, run: Evaluator, findings: Findings, budget: Budget
) -> None:
    """Adds the warnings of a pattern to `findings`; the work comes out of `budget`."""
    for key, facts in run.contained.items():
        if facts is not None:
            findings(codes.CONTAINED, run.idle[key].span, **facts)
    distinct = tuple({id(term): term for term in heads.terms}.values())
    parts = [leaf for term in distinct for leaf in leaves(term)]
    sampled = not any(isinstance(leaf, model.Random) or ordinals_of(leaf) for leaf in parts)
    if not sampled or heads.documents is not Documents.NONE or len(parts) * 2 * ROWS > MAX_ROWS:
        return
    if len(parts) * 2 * ROWS > budget.steps:
        return
    budget.spend(len(parts) * 2 * ROWS)
    reach = max([extent(leaf, heads.block) for leaf in parts], default=0)
    sample = Sample(min(2 * reach + 2 * heads.block, MAX_KEYS), heads.block)
    queries = _queries(sample)
    rows = {id(term): [row(term, i, sample) for i in queries] for term in distinct}
    _empty_row(pattern, heads, rows, queries, sample, findings)
    _group_differs(pattern, heads, rows, findings)
    if any(isinstance(leaf, model.Stride | model.Dilated) for leaf in parts):
        _unseen_pair(pattern, rows, queries, findings)


def _queries(sample: Sample) -> tuple[int, ...]:
    """Sample queries: the first, the last, those at the edges of blocks, and some between."""
    last, block = sample.n_k - 1, sample.block
    chosen = {0, 1, block - 1, block, block + 1, last // 2, last - block, last - 1, last}
    chosen |= {step * last // ROWS + step % 3 for step in range(ROWS)}
    return tuple(sorted(i for i in chosen if 0 <= i <= last))


def _empty_row(
    pattern: CheckedPattern,
    heads: ResolvedPattern,
    rows: dict[int, list[int]],
    queries: tuple[int, ...],
    sample: Sample,
    findings: Findings,
) -> None:
    for head, term in enumerate(heads.terms):
        for position, keys in zip(queries, rows[id(term)], strict=True):
            if not keys:
                name, n_k = pattern.name, sample.n_k
                findings(codes.EMPTY_ROW, pattern.span, name=name, row=position, head=head, keys=n_k)
                return


def _group_differs(
    pattern: CheckedPattern, heads: ResolvedPattern, rows: dict[int, list[int]], findings: Findings
) -> None:
    size = heads.heads // heads.kv_heads
    for first in range(0, heads.heads, size):
        for head in range(first + 1, first + size):
            one, other = heads.terms[first], heads.terms[head]
            if one is not other and rows[id(one)] != rows[id(other)]:
                group = first // size
                findings(codes.GROUP_DIFFERS, pattern.span, name=pattern.name, first=first, second=head, group=group)
                return


def _unseen_pair(
    pattern: CheckedPattern, rows: dict[int, list[int]], queries: tuple[int, ...], findings: Findings
) -> None:
    for position, seen in zip(queries, zip(*rows.values(), strict=True), strict=True):
        missing = (1 << (position + 1)) - 1
        for keys in seen:
            missing &= ~keys
        if missing:
            key = (missing & -missing).bit_length() - 1
            findings(codes.UNSEEN_PAIR, pattern.span, name=pattern.name, query=position, key=key)
            return
