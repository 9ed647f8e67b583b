"""A drawn pattern -> its checked terms, and a text that means the same, without the parser between.

Invariant: `resolved_of` and `written` say the same of every head; an input is declared where the text has it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparsec.sema import model
from sparsec.sema.builtins import printed
from sparsec.sema.inputs import TERM_KINDS, UNITS, input_names, input_statement
from sparsec.sema.model import Documents, InputDecl, InputKind, InputUnit, Leaf, ResolvedPattern, Score, Term
from sparsec.sema.printer import score_lines

_INPUT_LINE, _INPUT_COLUMN = 2, 11
"""Where the name of the first input of a text is."""
FORMS = tuple(
    (kind, unit) for kind in (InputKind.LENGTH, *TERM_KINDS) for unit in (InputUnit.TOKENS, *UNITS.get(kind, ()))
)
"""The inputs that stand in terms."""


@dataclass(frozen=True, slots=True)
class HeadLeaf:
    """A leaf whose number (a phase, a sink's or window's length, a lane) grows by `slope` for each head."""

    term: Leaf
    slope: int


@dataclass(frozen=True, slots=True)
class Operation:
    """`|`, `&` and `-` over two or more operands, `~` over one."""

    symbol: str
    operands: tuple[Tree, ...]


Tree = HeadLeaf | Operation


@dataclass(frozen=True, slots=True)
class Drawn:
    """A pattern as drawn: heads of groups below `split` have the set `first`, the others `second`."""

    heads: int
    kv_heads: int
    block: int
    causal: bool
    split: int
    first: Tree
    second: Tree
    documents: Documents
    score: Score
    inputs: tuple[InputDecl, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A `.sparse` text with one pattern, and the head counts to resolve it for (the text leaves them out)."""

    text: str
    heads: int
    kv_heads: int


def declaration(
    ordinal: int, kind: InputKind, unit: InputUnit = InputUnit.TOKENS, tile: tuple[int, int] | None = None
) -> InputDecl:
    """At the place where `written` has it."""
    return InputDecl(f"given{ordinal}", kind, _INPUT_LINE + ordinal, _INPUT_COLUMN, unit, tile)


def resolved_of(drawn: Drawn) -> ResolvedPattern:
    per_group = drawn.heads // drawn.kv_heads
    made: dict[Term, Term] = {}
    terms = []
    for head in range(drawn.heads):
        term = _at_head(drawn.first if head // per_group < drawn.split or not drawn.split else drawn.second, head)
        if drawn.causal:
            term = _flat(model.Intersection, (term, model.Causal()))
        terms.append(made.setdefault(term, term))
    return ResolvedPattern(
        drawn.heads, drawn.kv_heads, tuple(terms), drawn.block, drawn.inputs, drawn.documents, drawn.score
    )


def _at_head(tree: Tree, head: int) -> Term:
    if isinstance(tree, HeadLeaf):
        return _leaf_at(tree, head)
    operands = tuple(_at_head(operand, head) for operand in tree.operands)
    match tree.symbol:
        case "|":
            return _flat(model.Union, operands)
        case "&":
            return _flat(model.Intersection, operands)
        case "-":
            return model.Difference(*operands)
        case _:
            return model.Complement(*operands)


def _flat(kind: type[model.Union] | type[model.Intersection], operands: tuple[Term, ...]) -> Term:
    """Nested unions are one union, and intersections one intersection, as the language's resolver has them."""
    terms: list[Term] = []
    for operand in operands:
        terms += operand.terms if isinstance(operand, kind) else (operand,)
    return kind(tuple(terms))


def _leaf_at(leaf: HeadLeaf, head: int) -> Leaf:
    more = leaf.slope * head
    match leaf.term:
        case model.Window(int(n)) | model.Sink(int(n)):
            return replace(leaf.term, n=n + more)
        case model.Stride(period, phase) | model.Dilated(period, phase):
            return replace(leaf.term, phase=(phase + more) % period)
        case model.Random(_, _, lane):
            return replace(leaf.term, lane=lane + more)
        case _:
            return leaf.term


def written(drawn: Drawn) -> Source:
    names = input_names(drawn.inputs)
    lines = [f"    {input_statement(decl)}" for decl in drawn.inputs]
    lines.append(f"    block {drawn.block}")
    if drawn.causal:
        lines.append("    causal")
    lines += score_lines(drawn.documents, drawn.score, names)
    first = _text(drawn.first, names)
    if drawn.split:
        lines.append(f"    where g < {drawn.split} attend {first}")
        lines.append(f"    otherwise attend {_text(drawn.second, names)}")
    else:
        lines += [f"    let drawn = {first}", "    attend drawn"]
    return Source("\n".join(["pattern drawn_set {", *lines, "}", ""]), drawn.heads, drawn.kv_heads)


def _text(tree: Tree, names: tuple[str, ...]) -> str:
    """The tree as an expression; every operand in parentheses, so that no precedence is relied on."""
    if isinstance(tree, HeadLeaf):
        return _leaf_written(tree, names)
    operands = [f"({_text(operand, names)})" for operand in tree.operands]
    return f"~{operands[0]}" if tree.symbol == "~" else f" {tree.symbol} ".join(operands)


def _leaf_written(leaf: HeadLeaf, names: tuple[str, ...]) -> str:
    term, slope = leaf.term, leaf.slope
    unit = "b" if getattr(term, "blocks", False) else ""
    if not slope:
        return printed(term, names)
    match term:
        case model.Window(n, ahead):
            return f"window({n}{unit} + {slope}{unit} * h, ahead = {ahead}{unit})"
        case model.Sink(n):
            return f"sink({n}{unit} + {slope}{unit} * h)"
        case model.Stride(period, phase):
            return f"stride({period}{unit}, phase = {phase} + {slope} * h)"
        case model.Dilated(period, phase):
            return f"dilated({period}{unit}, phase = {phase} + {slope} * h)"
        case model.Random(k, seed, lane):
            return f"random({k}, seed = {seed}, lane = {lane} + {slope} * h)"
        case _:
            raise AssertionError(f"a {type(term).__name__} has no number that varies with the head")
