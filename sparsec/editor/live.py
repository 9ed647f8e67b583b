"""A pattern of a text -> the share of its pairs that are live, for the head counts of the file or of the settings.

Invariant: the work is bounded: patterns that take too long to simplify, or whose heads are too many, have no share.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.analysis.coverage import dense_pairs, pattern_coverage, whole_view
from sparsec.checking import CHECK_EFFORT
from sparsec.diagnostics.tables import percent
from sparsec.editor.document import Document, Settings
from sparsec.editor.values import Counts, resolved_pattern
from sparsec.ir.bands.normalise import Effort, TooManyBands, TooMuchEffort
from sparsec.pipeline import Lowered
from sparsec.plan.build import TooManyClasses

MAX_DISTINCT = 64
"""Distinct heads of a pattern that are counted."""


@dataclass(frozen=True, slots=True)
class LiveShare:
    """Live pairs over the dense ones: the causal pairs, if no head looks ahead; an estimate unless `exact`."""

    fraction: float
    causal: bool
    exact: bool
    seq_len: int
    counts: Counts
    has_inputs: bool

    @property
    def short(self) -> str:
        """`7.69% live`."""
        return f"{'' if self.exact else 'about '}{percent(self.fraction)} live"

    def __str__(self) -> str:
        of = "the causal pairs" if self.causal else "all pairs"
        about = "" if self.exact else "about "
        most = "at most " if self.has_inputs else ""
        shown = f"{most}{about}{percent(self.fraction)} of {of} live at {self.seq_len} tokens"
        return f"{shown} ({self.counts})"


def pattern_share(document: Document, name: str, settings: Settings) -> LiveShare | None:
    """The share of a pattern; None if it has an error, or takes too long to tell."""
    if name not in document.checked.patterns or (found := resolved_pattern(document, name, settings)) is None:
        return None
    pattern, counts = found
    if len({id(term) for term in pattern.terms}) > MAX_DISTINCT:
        return None
    try:
        heads = pattern_coverage(
            Lowered(pattern, Effort(within=Effort(CHECK_EFFORT))).within_limits(), settings.seq_len
        )
    except (TooManyBands, TooManyClasses, TooMuchEffort):
        return None
    dense, causal = dense_pairs(heads, whole_view(settings.seq_len))
    live = sum(len(head.heads) * head.live_pairs for head in heads)
    exact = all(head.exact for head in heads)
    return LiveShare(live / dense, causal, exact, settings.seq_len, counts, bool(pattern.inputs))
