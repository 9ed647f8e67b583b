"""Builds one built-in term from the values of its arguments, and checks those values.

Invariant: every integer of a leaf lies within its bounds in tokens as well as in its own unit.
"""

from __future__ import annotations

from sparsec.diagnostics import codes_meaning as codes
from sparsec.sema import model
from sparsec.sema.builtins import TERMS, Argument, End, Slot, built
from sparsec.sema.model import Leaf, RunTimeLength
from sparsec.sema.node import LIMIT, Node, Type
from sparsec.sema.resolution.values import Evaluator, Place, RangeValue, Value
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
    leaf = _leaf(node, args, place)
    return run.terms.leaf(leaf, line) if leaf is not None else None


def _leaf(node: Node, args: list[Value | None], place: Place) -> Leaf | None:
    first = node.args[0] if node.args else None
    arguments: list[Argument] = []
    for slot, given, value in zip(TERMS[node.op].slots, node.args, args, strict=True):
        if isinstance(value, RangeValue):
            arguments.append((_end(value.start), _end(value.stop)))
        elif given is not None or not slot.of_head:
            arguments.append(value if isinstance(value, int | RunTimeLength) else 0)
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
    if isinstance(stop, int):
        from_start = 0 if start is None else start
        if stop == 0 or (isinstance(from_start, int) and from_start >= stop and (from_start < 0) == (stop < 0)):
            shown = f"{start}{unit}" if isinstance(start, int) else ""
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


def _end(end: int | RunTimeLength | None) -> End:
    return model.Edge(end, end < 0) if isinstance(end, int) else end
