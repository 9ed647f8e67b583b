"""What each tensor-core instruction of a kernel for compute capability 9.0 may take for the address of a tile.

HGMMA reads tiles in shared memory by descriptors, pairs of uniform registers: the address in the low word, the layout
in the high one. Here a listing's uniform registers are followed along all paths, and a descriptor is `lost` where one
of them may never have been set, may hold two layouts, or an address on one path and something else on another.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heappop, heappush

from sparsec.backends.triton.aot import KernelArtefact
from sparsec.backends.triton.machine_code import instructions

Value = frozenset[int | str]
"""What a register may hold: numbers, or FIELD, COPIED, OTHER or UNSET."""
FIELD, COPIED, OTHER, UNSET = "an address's field", "copied", "other", "unset"
"""The bits of an address that a descriptor takes; what comes from a vector register or an argument; all else."""
_MOST = 12
_LINE = re.compile(r"^\s*/\*([0-9a-f]+)\*/\s+(@!?U?P\w+\s+)?([A-Z0-9_.]+)\s*(.*?)\s*;")
_LABEL = re.compile(r"^(\.L_x_\d+):")
_KEPT = ("HGMMA", "SYNCS", "STS", "STG", "BRA", "UTMALDG", "UTMASTG", "UTMACCTL")
"""Their first operand is none that they set."""


@dataclass(frozen=True, slots=True)
class Instruction:
    at: int
    guarded: bool
    name: str
    operands: tuple[str, ...]

    @property
    def base(self) -> str:
        return self.name.split(".")[0]


State = dict[int, Value]


def lost_descriptors(artefact: KernelArtefact) -> list[str]:
    """Of a kernel for compute capability 9.0: the places of instructions, and what a word of theirs may hold."""
    (cubin,) = (data for name, data in artefact.files if name.endswith(".cubin"))
    return lost_in(instructions(cubin))


def lost_in(listing: str) -> list[str]:
    code, following = parsed(listing)
    counts = Counter(other for each in following for other in each)
    begins = (
        {0} | {n for n, count in counts.items() if count > 1} | {n for each in following if len(each) > 1 for n in each}
    )
    blocks = {first: _block(first, following, begins) for first in begins}
    states: dict[int, State] = {0: {}}
    waiting = [0]
    while waiting:
        first = heappop(waiting)
        after = states[first]
        for n in blocks[first]:
            after = step(after, code[n])
        for other in following[blocks[first][-1]]:
            known = states.get(other)
            met = after if known is None else joined(known, after)
            if met != known:
                states[other] = met
                heappush(waiting, other)
    found = []
    for first, state in sorted(states.items()):
        for n in blocks[first]:
            found += _lost(code[n], state)
            state = step(state, code[n])
    return found


def _block(first: int, following: list[list[int]], begins: set[int]) -> list[int]:
    """The instructions that run in a row from one on."""
    found = [first]
    while len(after := following[found[-1]]) == 1 and after[0] not in begins:
        found += after
    return found


def parsed(listing: str) -> tuple[list[Instruction], list[list[int]]]:
    """The instructions, and which may follow each."""
    code: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in listing.splitlines():
        if label := _LABEL.match(line):
            labels[label[1]] = len(code)
        elif found := _LINE.match(line):
            at, guard, name, operands = found.groups()
            words = tuple(word.strip().replace(".reuse", "") for word in operands.split(","))
            code.append(Instruction(int(at, 16), guard is not None, name, words))
    following = []
    for n, each in enumerate(code):
        goes = [labels[word] for word in re.findall(r"\.L_x_\d+", " ".join(each.operands)) if each.base == "BRA"]
        ends = each.base in ("BRA", "EXIT", "RET") and not each.guarded and len(each.operands) == 1
        following.append([*goes, *([] if ends or n + 1 == len(code) else [n + 1])])
    return code, following


def step(state: State, of: Instruction) -> State:
    """The registers after an instruction."""
    target = None if of.base in _KEPT else _register(of.operands[0])
    if target is None:
        return state
    sources = [word for word in of.operands[1:] if not re.match(r"^!?U?P(T|\d)", word)]
    words = [[_value(state, word, n) for word in sources] for n in range(2)]
    match of.base:
        case "UMOV":
            found = [words[0][0]]
        case "R2UR" | "ULDC":
            found = [frozenset({COPIED})] * 2
        case "USGXT":
            found = [frozenset({FIELD})]
        case "ULOP3" if "0x3fff" in of.operands:
            found = [frozenset({FIELD})]
        case "UIADD3":
            found = [_sum(each) for each in words]
        case "ULOP3" if "0xfc" in of.operands:  # or
            found = [_sum(words[0][:2])]
        case "USEL":
            found = [words[0][0] | words[0][1]]
        case _:
            found = [frozenset({OTHER})] * 2
    found = found[: 2 if ".64" in of.name or ".WIDE" in of.name else 1]
    new = {target + n: value if len(value) <= _MOST else frozenset({OTHER}) for n, value in enumerate(found)}
    if of.guarded:
        new = {n: value | state.get(n, frozenset({UNSET})) for n, value in new.items()}
    return {**state, **new}


def joined(one: Mapping[int, Value], other: Mapping[int, Value]) -> State:
    unset: Value = frozenset({UNSET})
    both = {n: one.get(n, unset) | other.get(n, unset) for n in {**one, **other}}
    return {
        n: value if len(value) <= _MOST else frozenset({OTHER, UNSET} & value | {OTHER}) for n, value in both.items()
    }


def _lost(of: Instruction, state: State) -> list[str]:
    if of.base != "HGMMA":
        return []
    firsts = [int(n) for word in of.operands for n in re.findall(r"gdesc\[UR(\d+)\]", word)]
    one_of_two = re.fullmatch(r"R\d+", of.operands[1]) is not None  # the other tile is in registers
    found = []
    for word in (first + n for first in firsts for n in range(2 if one_of_two else 0, 4)):
        value = state.get(word, frozenset({UNSET}))
        names = {each for each in value if isinstance(each, str)}
        # An address that is kept in a vector register comes back as a copy.
        several = len(value) > 1 if word % 2 else len(names - {COPIED}) > 1
        if UNSET in names or several:
            found.append(f"{of.at:#x}: UR{word} may be {', '.join(sorted(map(str, value)))}")
    return found


def _register(word: str) -> int | None:
    found = re.fullmatch(r"[-~|]*UR(\d+)\|?", word)
    return int(found[1]) if found else None


def _value(state: State, word: str, more: int) -> Value:
    """What an operand may hold: its low word, or the word after it."""
    if (register := _register(word)) is not None:
        return state.get(register + more, frozenset({UNSET}))
    if re.fullmatch(r"-?0x[0-9a-f]+|-?\d+", word):
        return frozenset({int(word, 0) & 0xFFFFFFFF if more == 0 else 0})
    return frozenset({0 if word in ("URZ", "RZ") else COPIED})


def _sum(values: list[Value]) -> Value:
    """Sums: without a carry, as addresses leave room; what is added to a number keeps its name."""
    found: set[int | str] = {0}
    for value in values:
        found = {_added(one, other) for one in found for other in value}
    return frozenset(found)


def _added(one: int | str, other: int | str) -> int | str:
    if isinstance(one, int) and isinstance(other, int):
        return (one + other) & 0xFFFFFFFF
    names = {each for each in (one, other) if isinstance(each, str)}
    return next(each for each in (UNSET, OTHER, COPIED, FIELD) if each in names)
