"""Checked patterns -> `.sparse` text that resolves to them: how a test shows the pattern that failed.

Invariant: the text holds only keywords and final integers; parsing it gives the same set for every head.
"""

from __future__ import annotations

from sparsec.sema import model
from sparsec.sema.model import Documents, ResolvedPattern, Score, Term
from sparsec.sema.terms import Leaf, printed


def sparse_text(pattern: ResolvedPattern, name: str = "failing") -> str:
    """The pattern as a file with one item; equal heads share an arm."""
    arms: dict[str, list[int]] = {}
    for head, term in enumerate(pattern.terms):
        arms.setdefault(term_text(term), []).append(head)
    lines = [f"    heads {pattern.heads} kv {pattern.kv_heads}", f"    block {pattern.block}"]
    lines += score_lines(pattern.documents, pattern.score)
    if len(arms) == 1:
        lines.append(f"    attend {next(iter(arms))}")
    else:
        lines += [f"    where h in {heads} attend {text}" for text, heads in arms.items()]
    return "\n".join([f"pattern {name} {{", *lines, "}", ""])


def score_lines(documents: Documents, score: Score) -> list[str]:
    """The statements about documents and the score, a line each."""
    lines = [] if documents is Documents.NONE else [documents.value]
    lines += [f"{name} {value!r}" for name in ("scale", "softcap") if (value := getattr(score, name)) is not None]
    if score.alibi:
        slopes = f" [{', '.join(map(repr, score.alibi))}]" if isinstance(score.alibi, tuple) else ""
        lines.append(f"alibi{slopes}")
    if score.learned_sink:
        lines.append("learned_sink")
    return [f"    {line}" for line in lines]


def term_text(term: Term) -> str:
    """The term as an expression, operands in parentheses."""
    match term:
        case model.At(inner):
            return term_text(inner)
        case model.Union(terms):
            return " | ".join(f"({term_text(t)})" for t in terms)
        case model.Intersection(terms):
            return " & ".join(f"({term_text(t)})" for t in terms)
        case model.Difference(left, right):
            return f"({term_text(left)}) - ({term_text(right)})"
        case model.Complement(inner):
            return f"~({term_text(inner)})"
        case _:
            return leaf_text(term)


def leaf_text(term: Leaf) -> str:
    """A leaf as the language writes it."""
    return printed(term)
