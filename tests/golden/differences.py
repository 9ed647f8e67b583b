"""Generated sources -> what one of them has and others lack, by the parts that stand at the top level.

A part is a definition with the comments above it. `kernels` are texts that a source takes as they are, by name: those
of the files in templates/BACKEND/kernels. Invariant: a part that is left out stands verbatim in a known source or in
the kernel that is named, a line that is left out stands, in the same order, in the known part that is most like its
own, and lines of that one that are gone are counted; in `forms` a digest covers all that is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from hashlib import sha256

LEFT_OUT = "..."
SHORTEST = 3
"""Fewer lines than this in a row are repeated rather than left out."""
_ORIGIN = re.compile(r"(//|#) line \d+: .*")
"""Which terms a loop is of: other patterns write the same ones in other lines, and the tile programs name them too."""
TRIED = 8
"""Known parts, at most, that are compared in full with one that is new."""
_NUMBER = re.compile(r"\d+")


def parts_of(text: str) -> tuple[str, ...]:
    """The text cut where a line that is not indented follows an empty one."""
    return tuple(part.strip("\n") for part in re.split(r"\n+(?=\n\S)", text))


def named(text: str, kernels: Mapping[str, str]) -> tuple[str, ...]:
    """The parts of `text`, those of a kernel in a row as one: `... name`."""
    by_first: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for name, kernel in kernels.items():
        parts = parts_of(kernel)
        by_first.setdefault(parts[0], []).append((name, parts))
    rest, found = parts_of(text), list[str]()
    while rest:
        fitting = [(name, own) for name, own in by_first.get(rest[0], ()) if rest[: len(own)] == own]
        name, own = max(fitting, key=lambda each: len(each[1]), default=("", rest[:1]))
        found.append(f"{LEFT_OUT} {name}" if name else rest[0])
        rest = rest[len(own) :]
    return tuple(found)


def restored(text: str, kernels: Mapping[str, str]) -> tuple[str, ...]:
    """The parts of the source of which `laid_out` and `named` made `text`."""
    for name, kernel in kernels.items():
        text = text.replace(f"{LEFT_OUT} {name}\n", f"{kernel}\n\n")
    return parts_of(text)


def difference(
    text: str, known: Sequence[str], kernels: Mapping[str, str] | None = None, *, whole: bool = False
) -> str:
    """The parts of `text` that are neither in `known` nor before them; unless `whole`, without the known part's lines.

    What is left out is shown as one `...`, however much it is; `... -2`: and two lines of the known part are gone;
    `... name`: what a kernel holds, where no known source has it.
    """
    kernels = kernels or {}
    before = dict.fromkeys(_nameless(part) for each in known for part in named(each, kernels))
    shown: list[str] = []
    for part in named(text, kernels):
        nameless = _nameless(part)
        rest = LEFT_OUT if nameless in before else part if whole else _without(part, tuple(before))
        before[nameless] = None
        if shown and shown[-1].splitlines()[-1] == LEFT_OUT == rest.splitlines()[0]:
            rest = rest.removeprefix(LEFT_OUT).removeprefix("\n")
        if rest:
            shown.append(rest)
    return laid_out(shown)


def laid_out(parts: Sequence[str]) -> str:
    """An empty line between any two, but for those of one line that stand for others."""
    text = "\n\n".join(parts) + "\n"
    return re.sub(rf"^({re.escape(LEFT_OUT)}.*\n)\n(?={re.escape(LEFT_OUT)})", r"\1", text, flags=re.MULTILINE)


def forms(text: str, known: Sequence[str], kernels: Mapping[str, str]) -> str:
    """Of the lines of `text` that differ in more than numbers, and from those of `known`, the first of each form.

    `...` stands for the others; the line above all counts lines, and its digest changes with each of them.
    """
    parts = named(text, kernels)
    lines = [line for part in parts for line in part.splitlines() if line]
    before = {_form(line) for each in known for part in named(each, kernels) for line in part.splitlines()}
    shown = [f"{LEFT_OUT} {len(lines)} lines, sha256 {sha256(laid_out(parts).encode()).hexdigest()[:16]}"]
    for line in lines:
        if (form := _form(line)) not in before:
            shown.append(line)
            before.add(form)
        elif shown[-1] != LEFT_OUT:
            shown.append(LEFT_OUT)
    return "\n".join(shown) + "\n"


def _form(line: str) -> str:
    return _NUMBER.sub("0", _nameless(line.strip()))


def _nameless(text: str) -> str:
    return _ORIGIN.sub(r"\1 line", text)


def _without(part: str, known: Sequence[str]) -> str:
    """The part without runs of lines of the known one that is most like it."""
    if part.startswith(f"{LEFT_OUT} "):
        return part
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
