"""Outcomes of a mutation run <-> the table of TABLE.md.

Invariant: reading back what was written gives the same outcomes, seconds rounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TITLE = "# Mutants: what killed each\n\n`python tests/mutants/run.py --write` writes this file."
HEADER = "| operator | in | killed by | s |\n|---|---|---|---|"
_ROW = re.compile(r"\| (.+?) \| `(.+?)` \| (.+?) \| (\d+) \|")


@dataclass(frozen=True, slots=True)
class Outcome:
    """`by`: the test that failed, empty for a survivor; `reason`: why one survives that computes the same."""

    name: str
    file: str
    by: str
    reason: str
    seconds: float


def row(outcome: Outcome) -> str:
    by = f"`{outcome.by}`".replace("|", "/") if outcome.by else f"survives: {outcome.reason or 'no reason known'}"
    return f"| {outcome.name} | `{outcome.file}` | {by} | {outcome.seconds:.0f} |"


def markdown(outcomes: Iterable[Outcome]) -> str:
    found = tuple(outcomes)
    killed, minutes = sum(bool(o.by) for o in found), sum(round(o.seconds) for o in found) / 60
    total = (
        f"{len(found)} mutants, {killed} killed ({100 * killed / max(len(found), 1):.1f}%), in {minutes:.0f} minutes."
    )
    return "\n".join((total, "", HEADER, *map(row, found)))


def recorded(path: Path) -> list[Outcome]:
    """The outcomes of the table, in its order."""
    text = path.read_text(encoding="utf-8")
    found = []
    for name, file, by, seconds in _ROW.findall(text):
        killed = by.startswith("`")
        reason = by.removeprefix("survives: ").removeprefix("no reason known")
        found.append(Outcome(name, file, by.strip("`") if killed else "", "" if killed else reason, float(seconds)))
    return found


def merged(names: Iterable[str], old: Iterable[Outcome], new: Iterable[Outcome]) -> list[Outcome]:
    """The newest outcome of each name that has one."""
    known = {outcome.name: outcome for outcome in (*old, *new)}
    return [known[name] for name in names if name in known]


def write(path: Path, outcomes: Iterable[Outcome]) -> None:
    path.write_text(f"{TITLE}\n\n{markdown(outcomes)}\n", encoding="utf-8")
