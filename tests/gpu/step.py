"""The arguments that every step has: the folder of results, and when it has to end.

Invariant: `until` is on the system's monotonic clock, so that what a process takes to start is in its time.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

USUAL_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Given:
    """`rest`: the step's own arguments by name."""

    out: Path
    until: float
    rest: dict[str, object]

    def left(self) -> float:
        return max(0.0, self.until - time.monotonic())


def arguments(doc: str | None, **own: dict[str, object]) -> Given:
    """`own`: further options by name, and what `add_argument` takes of each."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of results")
    parser.add_argument(
        "--until", type=float, metavar="T", help=f"seconds of the monotonic clock; {USUAL_SECONDS:.0f} from now"
    )
    for name, options in own.items():
        parser.add_argument(f"--{name}", **options)  # type: ignore[arg-type]  # as add_argument says
    found = vars(parser.parse_args())
    until = found.pop("until")
    return Given(found.pop("out"), time.monotonic() + USUAL_SECONDS if until is None else until, found)
