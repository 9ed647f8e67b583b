"""Generated sources -> what one of them has and others lack, by the parts that stand at the top level.

A part is a definition with the comments above it. Invariant: a part that is left out stands verbatim in a known source,
a line that is left out stands, in the same order, in the known part that is most like its own, and lines of that one
that are gone are counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

LEFT_OUT = "..."
SHORTEST = 3
"""Fewer lines than this in a row are repeated rather than left out."""
_ORIGIN = re.compile(r"(//|#) line \d+: .*")
"""Which terms a loop is of: other patterns write the same ones in other lines, and the tile programs name them too."""
TRIED = 8
"""Known parts, at most, that are compared in full with one that is new."""


def parts_of(text: str) -> tuple[str, ...]:
    """The text cut where a line that is not indented follows an empty one."""
    return tuple(part.strip("\n") for part in re.split(r"\n+(?=\n\S)", text))


def difference(text: str, known: Sequence[str], *, whole: bool = False) -> str:
    """The parts of `text` that are neither in `known` nor before them; unless `whole`, without the known part's lines.

    What is left out is shown as one `...`, however much it is; `... -2`: and two lines of the known part are gone.
    """
    before = dict.fromkeys(part for each in known for part in parts_of(_nameless(each)))
    shown: list[str] = []
    for part in parts_of(text):
        nameless = _nameless(part)
        rest = LEFT_OUT if nameless in before else part if whole else _without(part, tuple(before))
        before[nameless] = None
        if shown and shown[-1].splitlines()[-1] == LEFT_OUT == rest.splitlines()[0]:
            rest = rest.removeprefix(LEFT_OUT).removeprefix("\n")
        if rest:
            shown.append(rest)
    return "\n\n".join(shown) + "\n"


def _nameless(text: str) -> str:
    return _ORIGIN.sub(r"\1 line", text)


def _without(part: str, known: Sequence[str]) -> str:
    """The part without runs of lines of the known one that is most like it."""
    lines, compared = part.splitlines(), _nameless(part).splitlines()
    matchers = [SequenceMatcher(None, other.splitlines(), compared, autojunk=False) for other in known]
    matchers = sorted(matchers, key=SequenceMatcher.quick_ratio, reverse=True)[:TRIED]
    if not matchers:
        return part
    shown: list[str] = []
    for how, first, last, start, stop in max(matchers, key=SequenceMatcher.ratio).get_opcodes():
        own = lines[start:stop]
        after = bool(shown) and shown[-1].lstrip().startswith(LEFT_OUT)
        if how == "delete":
            shown[-1:] = [f"{shown[-1]} -{last - first}"] if after else [*shown[-1:], f"{LEFT_OUT} -{last - first}"]
        elif how == "equal" and len(own) >= SHORTEST:
            margin = min((line[: len(line) - len(line.lstrip())] for line in own if line), key=len, default="")
            shown += [] if after else [f"{margin}{LEFT_OUT}"]
        else:
            shown += own
    return "\n".join(shown)
