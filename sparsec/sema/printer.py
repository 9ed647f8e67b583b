"""Checked patterns -> `.sparse` text that resolves to them, every parameter settled; and heads as runs.

Invariant: the text holds only keywords, final numbers and the names of inputs; parsed, it gives every head its set.
"""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.sema import model
from sparsec.sema.builtins import printed
from sparsec.sema.inputs import input_names, input_statement
from sparsec.sema.model import Documents, ResolvedPattern, Score, Term
from sparsec.sema.modifiers import given_of, statement_text
from sparsec.sema.terms import parts_of


def sparse_text(pattern: ResolvedPattern, name: str = "failing") -> str:
    """The pattern as a file with one item; equal heads share an arm. A comment names the lines that an arm is from."""
    arms: dict[str, list[int]] = {}
    names = input_names(pattern.inputs)
    for head, term in enumerate(pattern.terms):
        arms.setdefault(head_text(term, names), []).append(head)
    lines = [f"    heads {pattern.heads} kv {pattern.kv_heads}", f"    block {pattern.block}"]
    lines += [f"    {input_statement(decl)}" for decl in pattern.inputs]
    lines += score_lines(pattern.documents, pattern.score, names)
    if len(arms) == 1:
        lines.append(f"    attend {next(iter(arms))}")
    else:
        lines += [f"    where h in {heads} attend {text}" for text, heads in arms.items()]
    return "\n".join([f"pattern {name} {{", *lines, "}", ""])


def score_lines(documents: Documents, score: Score, names: Sequence[str] = ()) -> list[str]:
    """The statements about documents and the score, a line each; `names` as in `builtins.printed`."""
    lines = [] if documents is Documents.NONE else [documents.value]
    lines += [] if score.scale is None else [statement_text("scale", score.scale)]
    lines += [statement_text(modifier.entry.keyword, given_of(modifier), names) for modifier in score.modifiers]
    return [f"    {line}" for line in lines]


def head_text(term: Term, names: Sequence[str] = ()) -> str:
    """The set of one head as an expression, and behind it the lines of the file that it is from."""
    found = sorted(_lines(term))
    if not found:
        return term_text(term, names)
    return f"{term_text(term, names)}  # line{'s' if len(found) > 1 else ''} {', '.join(map(str, found))}"


def term_text(term: Term, names: Sequence[str] = ()) -> str:
    """The term as an expression; an operand that is no leaf stands in parentheses."""
    match term:
        case model.At(inner):
            return term_text(inner, names)
        case model.Union(terms):
            return " | ".join(_operand(part, names) for part in terms)
        case model.Intersection(terms):
            return " & ".join(_operand(part, names) for part in terms)
        case model.Difference(left, right):
            return f"{_operand(left, names)} - {_operand(right, names)}"
        case model.Complement(inner):
            return f"~{_operand(inner, names)}"
        case _:
            return printed(term, names)


def _operand(term: Term, names: Sequence[str]) -> str:
    text = term_text(term, names)
    while isinstance(term, model.At):
        term = term.term
    compound = isinstance(term, model.Union | model.Intersection | model.Difference | model.Complement)
    return f"({text})" if compound else text


def _lines(term: Term) -> frozenset[int]:
    own = {term.origin.line} if isinstance(term, model.At) else ()
    return frozenset(own).union(*map(_lines, parts_of(term)))


def head_ranges(heads: tuple[int, ...]) -> str:
    """`0..4, 6`: half-open runs of ascending heads."""
    runs: list[list[int]] = []
    for head in heads:
        if runs and runs[-1][1] == head:
            runs[-1][1] = head + 1
        else:
            runs.append([head, head + 1])
    return ", ".join(f"{start}" if stop == start + 1 else f"{start}..{stop}" for start, stop in runs)
