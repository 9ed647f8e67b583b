"""Whether one leaf term contains another, for every position and length: what the warning about idle terms rests on.

Invariant: `contains` is true only if it is true for all i, j and Nk; false may mean that the proof is beyond it.
"""

from __future__ import annotations

from sparsec.sema import model
from sparsec.sema.builtins import End
from sparsec.sema.model import RunTimeLength, Term
from sparsec.sema.node import Node
from sparsec.sema.printer import term_text
from sparsec.sema.resolution.values import Evaluator
from sparsec.sema.terms import Sized

MAX_JOINED = 16


def note_contained(node: Node, args: tuple[Node, ...], parts: list[Sized], block: int, run: Evaluator) -> None:
    """Records which of the joined leaves contain which; a pair that fails once, for one head, is ruled out for good."""
    if len(parts) > MAX_JOINED:
        return
    for i, inner in enumerate(parts):
        for k, outer in enumerate(parts):
            # Of two equal terms the later one is idle.
            if i == k or (inner.term is outer.term and (i < k) is (node.op == "|")):
                continue
            key = (id(args[i]), id(args[k]))
            if run.contained.get(key, {}) is None:
                continue
            if not _proved(outer.term, inner.term, block):
                run.contained[key] = None
            elif key not in run.contained and isinstance(inner.term, model.At) and isinstance(outer.term, model.At):
                idle = (args[i], inner.term) if node.op == "|" else (args[k], outer.term)
                operation = "union" if node.op == "|" else "intersection"
                names = tuple(run.input_ordinals)
                texts = (term_text(each, names) for each in (inner.term, outer.term, idle[1]))
                said = (*texts, operation)
                run.contained[key] = dict(zip(("inner", "outer", "redundant", "operation"), said, strict=True))
                run.idle[key] = idle[0]


def _proved(outer: Term, inner: Term, block: int) -> bool:
    if isinstance(outer, model.At) and isinstance(inner, model.At):
        return contains(outer.term, inner.term, block)
    return False


def contains(outer: Term, inner: Term, block: int) -> bool:
    """Whether every pair of the leaf `inner` is in the leaf `outer`, with block size `block`."""
    if outer == inner:
        return True
    match outer, inner:
        case (model.Full(), _) | (_, model.Nothing()):
            return True
        case model.Causal(), model.Window(_, ahead, blocks):
            return ahead == 0 and not blocks
        case model.Window(), model.Window():
            return _window_contains(outer, inner, block)
        case (model.Sink(int(n), blocks), model.Sink(int(m), small)) | (
            model.Global(n, blocks),
            model.Sink(int(m), small),
        ):
            return _tokens(m, small, block) <= _tokens(n, blocks, block)
        case model.Global(n, blocks), model.Global(m, small):
            return _tokens(m, small, block) <= _tokens(n, blocks, block)
        case (model.Stride(period, phase, blocks), model.Stride(multiple, part, small)) | (
            model.Dilated(period, phase, blocks),
            model.Dilated(multiple, part, small),
        ):
            return blocks is small and multiple % period == 0 and part % period == phase
        case model.Chunk(n, back, ahead), model.Chunk(m, less, fewer):
            return n == m and less <= back and fewer <= ahead
        case model.Chunk(n, back, ahead), model.Near2d(width, rows):
            return n == width and rows <= min(back, ahead)
        case model.Near2d(width, rows, columns), model.Near2d(other, less, fewer):
            return width == other and less <= rows and fewer <= columns
        case model.Window(int(n), ahead, False), model.Near2d(width, rows, columns):
            return rows * width + min(columns, width - 1) <= min(n - 1, ahead)
        case (model.Columns(low, high, blocks), model.Columns(start, stop, small)) | (
            model.Rows(low, high, blocks),
            model.Rows(start, stop, small),
        ):
            starts, stops = low is None or _ordered(low, start), high is None or _ordered(stop, high)
            return blocks is small and starts and stops
        case _:
            return False


def _window_contains(outer: model.Window, inner: model.Window, block: int) -> bool:
    if isinstance(outer.n, RunTimeLength) or isinstance(inner.n, RunTimeLength):
        return outer.n == inner.n and inner.ahead <= outer.ahead
    if outer.blocks is inner.blocks:
        return inner.n <= outer.n and inner.ahead <= outer.ahead
    if inner.blocks:
        # Distances of the block form reach from -(ahead*B + B-1) to n*B - 1.
        return inner.n * block <= outer.n and (inner.ahead + 1) * block - 1 <= outer.ahead
    reach, ahead = -(-(inner.n - 1) // block), -(-inner.ahead // block)
    return reach < outer.n and ahead <= outer.ahead


def _tokens(n: int, blocks: bool, block: int) -> int:
    return n * block if blocks else n


def _ordered(low: End, high: End) -> bool:
    """Whether low <= high for every Nk, both ends counting from the same side."""
    if isinstance(low, RunTimeLength) or isinstance(high, RunTimeLength):
        return low == high
    return low is not None and high is not None and low.from_end is high.from_end and low.at <= high.at
