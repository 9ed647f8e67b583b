"""Builds one built-in term from the values of its arguments, and checks those values.

Invariant: every integer of a leaf lies within its bounds in tokens as well as in its own unit.
"""

from __future__ import annotations

from sparsec.diagnostics import codes_meaning as codes
from sparsec.sema import model
from sparsec.sema.builtins import TERMS, Argument, Slot, built
from sparsec.sema.model import Leaf
from sparsec.sema.node import LIMIT, Node, Type
from sparsec.sema.resolution.values import Evaluator, Place, RangeValue, RunTime, Value
from sparsec.sema.terms import Sized


def build_leaf(node: Node, args: list[Value | None], place: Place, run: Evaluator) -> Sized | None:
    """The leaf of a built-in term or of an input; None if an argument is not known here or is wrong."""
    run.budget.spend()
    line = place.line_of(node.span)
    if node.op == "input":
        return run.terms.leaf(model.Input(run.input_ordinals[str(node.value)]), line)
    sound = True
    for slot, arg_node, value in zip(TERMS[node.op].slots, node.args, args, strict=True):
        if arg_node is not None and (value is None or not _within(node.op, slot, arg_node, value, place, run)):
            sound = False
    if not sound:
        return None
    name = _run_time_input(args)
    if name is not None:
        return run.terms.leaf(model.Input(run.input_ordinals[name]), line)
    leaf = _leaf(node, args, place)
    return run.terms.leaf(leaf, line) if leaf is not None else None


def _leaf(node: Node, args: list[Value | None], place: Place) -> Leaf | None:
    first = node.args[0] if node.args else None
    arguments: list[Argument] = []
    for slot, given, value in zip(TERMS[node.op].slots, node.args, args, strict=True):
        if isinstance(value, RangeValue):
            arguments.append((_edge(value.start), _edge(value.stop)))
        elif given is not None or not slot.of_head:
            arguments.append(value if isinstance(value, int) else 0)
        elif "h" in place.builtins:
            arguments.append(place.builtins["h"])
        else:
            return None
    in_blocks = first is not None and first.type in (Type.BLOCKS, Type.BLOCK_RANGE)
    return built(node.op, arguments, in_blocks=in_blocks, block=place.builtins.get("B"))


def _within(term: str, slot: Slot, arg: Node, value: Value, place: Place, run: Evaluator) -> bool:
    """Whether an argument's value is in its bounds; reports it if not."""
    if isinstance(value, RangeValue):
        return _range_within(arg, value, place, run)
    if not isinstance(value, int):
        return True
    what, least = f"`{slot.name}` of `{term}`", slot.least
    unit = "b" if arg.type is Type.BLOCKS else ""
    if value < least:
        run.problem(codes.TOO_SMALL, arg.span, what=what, value=f"{value}{unit}", least=f"{least}{unit}")
        return False
    if value > slot.most:
        run.problem(codes.TOO_LARGE, arg.span, what=what, value=value, limit=slot.most)
        return False
    return _fits_in_tokens(arg, value, what, arg.type is Type.BLOCKS, place, run)


def _range_within(arg: Node, value: RangeValue, place: Place, run: Evaluator) -> bool:
    start, stop = value.start, value.stop
    blocks = arg.type is Type.BLOCK_RANGE
    unit = "b" if blocks else ""
    known = isinstance(start, int | None) and isinstance(stop, int)
    if known and isinstance(stop, int) and not isinstance(start, RunTime):
        from_start = start if start is not None else 0
        if stop == 0 or (from_start >= stop and (from_start < 0) == (stop < 0)):
            shown = f"{start}{unit}" if start is not None else ""
            run.problem(codes.EMPTY_RANGE, arg.span, range=f"{shown}..{stop}{unit}")
            return False
    ends = [end for end in (start, stop) if isinstance(end, int)]
    return False not in [_fits_in_tokens(arg, end, "the end of this range", blocks, place, run) for end in ends]


def _fits_in_tokens(arg: Node, value: int, what: str, blocks: bool, place: Place, run: Evaluator) -> bool:
    block = place.builtins.get("B", 1) if blocks else 1
    if abs(value) * block <= LIMIT:
        return True
    run.problem(codes.TOO_LARGE, arg.span, what=f"{what} in tokens", value=value * block, limit=LIMIT)
    return False


def _edge(end: int | RunTime | None) -> model.Edge | None:
    assert not isinstance(end, RunTime)
    return None if end is None else model.Edge(end, end < 0)


def _run_time_input(args: list[Value | None]) -> str | None:
    """The input that an argument names, alone or as the end of a range."""
    for arg in args:
        for part in (arg.start, arg.stop) if isinstance(arg, RangeValue) else (arg,):
            if isinstance(part, RunTime):
                return part.name
    return None
