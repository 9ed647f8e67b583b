"""What a sweep tries: tiles, warps, stages and register limits of each kind of kernel, the rules' own first.

Invariant: no candidate twice for one kind, head dimension and dtype; the most promising ones come first, so that a
sweep which is cut off has tried them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gpu import REHEARSAL

from sparsec.plan.candidates import ruled, tried
from sparsec.plan.picks import Kind, Pick

HEAD_DIMS, DTYPES = ((64,), ("bfloat16",)) if REHEARSAL else ((128, 64, 256), ("bfloat16", "float16"))
_MOST = 2 if REHEARSAL else 12
"""Of one kind, head dimension and dtype."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """`rule`: what the rules give where nothing is picked."""

    kind: Kind
    head_dim: int
    dtype: str
    pick: Pick
    rule: bool

    def as_row(self) -> dict[str, Any]:
        """As `picks.picks_of` reads it."""
        pick = self.pick
        return {
            "kind": self.kind.value,
            "head_dim": self.head_dim,
            "dtype": self.dtype,
            "query_tile": pick.query_tile,
            "key_tile": pick.key_tile,
            "warps": pick.warps,
            "stages": pick.stages,
            "maxnreg": pick.maxnreg,
            "rule": self.rule,
        }


def candidates(target: str) -> Iterator[Candidate]:
    """All, for a target of `plan.target`: bfloat16 first, every kind's rule before the others' candidates."""
    for dtype in DTYPES:
        places = [(kind, head_dim) for head_dim in HEAD_DIMS for kind in Kind]
        for kind, head_dim in places:
            yield Candidate(kind, head_dim, dtype, ruled(target, kind, head_dim, dtype), True)
        for kind, head_dim in places:
            rule = ruled(target, kind, head_dim, dtype)
            others = [pick for pick in _tried(target, kind, head_dim) if pick != rule]
            for pick in others[: _MOST - 1]:
                yield Candidate(kind, head_dim, dtype, pick, False)


def _tried(target: str, kind: Kind, head_dim: int) -> tuple[Pick, ...]:
    found = tried(kind, head_dim)
    if target != "interpreter":
        return found
    return tuple(Pick(min(p.query_tile, 32), min(p.key_tile, 16), p.warps, p.stages, p.maxnreg) for p in found)
