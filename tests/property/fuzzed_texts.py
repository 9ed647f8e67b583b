"""Texts for the front end to survive: drawn from the grammar's rules, written as a user would, and damaged.

Invariant: a text follows from its kind and number alone, so that a failing one can be drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from random import Random

from lark.grammar import NonTerminal, Rule

from sparsec.syntax.lexer import grammar, spellings

SEED = """\
# S2: every group keeps another shard.
param n = 4k
pattern s2(local = 16b, every = [0, 3, 4..8]) {
    heads 32 kv 8
    block 64
    causal
    documents restart
    let near = window(local, ahead = 2) - sink(3b)
    input prefix : length
    where not g in every and (h == 1 or l >= L // 3) attend near | stride(every, phase = -g) & ~columns(0 .. prefix)
    otherwise attend full  # rest
    scale 1/128
    softcap 0.5e-3
    alibi [0.5, 1/128, 0]
    learned_sink
}
model m(x = true) { layers 32 where l < 2 use s2(local = 8b) otherwise use dense }
"""
WORDS = ("x", "full", "window(4)", "64", "4k", "2b", "0.5", "99999999999", "3x", "# c\n", "$")
BYTES = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x00", b"\r", b"\xef\xbb\xbf", "é∪\u202e".encode())

NAMES = ("h", "g", "H", "G", "B", "l", "L", "n", "x", "p", "q", "full", "none", "window", "sink", "stride", "chunk")
NUMBERS = ("0", "1", "3", "64", "4k", "2b", "16b", "1kb", "2147483647", "33554431b", "007")
IMPORTS = ('import "a.sparse"', 'import "a.sparse" as a', 'import "../b.sparse" as b')
SAMPLES = {
    "NAME": NAMES,
    "INTEGER": NUMBERS,
    "DECIMAL": ("0.5", "1e-3", "0.0", "9.9E+300", "1e999"),
    "IMPORT": IMPORTS,
}


def drawn_from_the_grammar(draw: Random) -> bytes:
    """A derivation of the grammar: its syntax is sound, its meaning seldom."""
    rules, least = _rules()
    words: list[str] = []
    pending = [NonTerminal("start")] * draw.choice((1, 2, 8))
    while pending:
        symbol = pending.pop()
        if symbol.name not in rules:
            words.append(draw.choice(SAMPLES.get(symbol.name) or (spellings()[symbol.name],)))
            words += ["# c\n"] * (draw.random() < 0.01)
            continue
        rule = least[symbol.name]
        wide = "_star_" in symbol.name or symbol.name in ("start", "item", "body", "statement")
        if len(words) + len(pending) < 150 and draw.random() < (0.8 if wide else 0.3):
            rule = draw.choice(rules[symbol.name])
        pending.extend(reversed(rule.expansion))
    return draw.choice((" ", " ", "\n")).join(words).encode()


@cache
def _rules() -> tuple[Mapping[str, list[Rule]], Mapping[str, Rule]]:
    """The rules of each symbol, and the one of them with the shallowest derivation."""
    rules: dict[str, list[Rule]] = {}
    for rule in grammar().rules:
        rules.setdefault(rule.origin.name, []).append(rule)
    least: dict[str, Rule] = {}
    while len(least) < len(rules):
        known = least.keys() | spellings().keys() | SAMPLES.keys()
        for name in sorted(rules.keys() - least.keys()):
            if fits := [rule for rule in rules[name] if all(part.name in known for part in rule.expansion)]:
                least[name] = min(fits, key=lambda rule: len(rule.expansion))
    return rules, least


def written(draw: Random) -> bytes:
    """Patterns and a model of well-typed parts: mostly sound, with values that no kernel would like."""
    return _Author(draw).file().encode()


class _Author:
    """Writes expressions of a type asked for, of at most a few levels."""

    def __init__(self, draw: Random) -> None:
        self.draw = draw
        self.lets: list[str] = []
        self.patterns: list[str] = []

    def file(self) -> str:
        items = [f"param n = {self.draw.choice(('1', '5', '64', '4k'))}", "param wide = 4b", "param listed = [0, 2..5]"]
        for number in range(self.draw.choice((1, 1, 2, 3))):
            items.append(self.pattern(f"p{number}"))
        if self.draw.random() < 0.3:
            used = self.draw.choice(self.patterns)
            last = self.draw.choice(("1", "3", "9", "n"))
            items.append(f"model m {{ layers 4 where l < {last} use {used} otherwise use {used} }}")
        return "\n".join(items)

    def pattern(self, name: str) -> str:
        choice, chance = self.draw.choice, self.draw.random
        self.lets = []
        lines = [choice(("heads 4 kv 2",) * 6 + ("heads 6", "", "heads H", "heads 300 kv 1"))]
        lines.append(choice(("",) * 9 + ("block 16", "block 128", "block 24")))
        alibi = choice(("alibi", "alibi [0.5, 0, 1/3, 2]", "alibi listed", "alibi [1/0, -1, 2, 1e99]"))
        lines += [line for line in ("causal", alibi, "learned_sink", "scale 1/128", "softcap 2") if chance() < 0.2]
        if chance() < 0.1:
            lines.append(choice(("documents", "documents restart")))
        if chance() < 0.2:
            kind = choice(
                ("columns(blocks)", "slashes(tiles)", "rows", "blocks(k, 2b)", "blocks(0, 3)", "labels", "tree")
            )
            lines.append(f"input i : {choice((kind, kind, 'length', 'tokens', 'weights', 'rows(tiles)'))}")
            lines += ["key_bias i"] * (chance() < 0.3)
            self.lets.append("i")
        for _ in range(choice((0, 0, 1, 3))):
            lines.append(f"let a{len(self.lets)} = {self.term(2)}")
            self.lets.append(f"a{len(self.lets)}")
        for _ in range(choice((0, 0, 0, 1, 2))):
            lines.append(f"where {self.condition(2)} attend {self.term(2)}")
        lines.append(f"{'otherwise ' * (' where' in ' '.join(lines))}attend {self.term(3)}")
        self.patterns.append(name)
        return f"pattern {name}({choice(('', 'k = 3', 'k = 2b, s = [1, 4]'))}) {{\n" + "\n".join(lines) + "\n}"

    def term(self, depth: int) -> str:
        if depth and self.draw.random() < 0.5:
            sign = self.draw.choice(("|", "|", "|", "&", "-"))
            return f"({self.term(depth - 1)} {sign} {self.term(depth - 1)})"
        if self.draw.random() < 0.1:
            return f"~{self.term(0)}"
        if self.draw.random() < 0.2 and self.lets + self.patterns:
            return self.draw.choice(self.lets + self.patterns)
        kind = self.draw.choice(
            ("window", "window", "sink", "stride", "dilated", "chunk", "near2d", "columns", "rows", "more")
        )
        unit = self.draw.choice(("", "b"))
        size = f"{self.draw.choice((1, 2, 7, 64, 1000, 33_554_431))}{unit}" if unit else self.integer()
        match kind:
            case "window":
                return f"window({size}{self.draw.choice(('', f', ahead = 3{unit}'))})"
            case "stride" | "dilated":
                return f"{kind}({size}{self.draw.choice(('', f', phase = {self.integer()}'))})"
            case "chunk":
                return f"chunk({size}{self.draw.choice(('', ', back = 2', ', ahead = 3'))})"
            case "near2d":
                near, width = self.draw.choice((0, 1, 5, 40)), self.integer()
                return f"near2d(width = {width}, rows = {near}, columns = {self.integer()})"
            case "columns" | "rows":
                return f"{kind}({self.draw.choice((f'0{unit}..', f'..-2{unit}', f'3{unit} .. 90{unit}', 'n..H'))})"
            case "more":
                return self.draw.choice(("full", "none", "causal", f"global({size})", "random(2)", "random(n)"))
        return f"{kind}({size})"

    def integer(self, depth: int = 2) -> str:
        if depth and self.draw.random() < 0.3:
            sign = self.draw.choice(("+", "-", "*", "//", "%"))
            return f"({self.integer(depth - 1)} {sign} {self.integer(depth - 1)})"
        if self.draw.random() < 0.05:
            return f"{self.draw.choice(('min', 'max'))}({self.integer(0)}, tokens(wide))"
        if self.draw.random() < 0.08:
            return self.draw.choice(("0", "2147483647", "-h", "g", "listed[h]", "[4, 1..n][g]"))
        return self.draw.choice(("1", "4", "64", "n", "n", "H", "B", "h + 1", "g + 1"))

    def condition(self, depth: int) -> str:
        if depth and self.draw.random() < 0.3:
            return f"(not {self.condition(depth - 1)} {self.draw.choice(('and', 'or'))} {self.condition(depth - 1)})"
        return self.draw.choice(("h == 0", "g == 1", "h in [1, 3..9]", f"{self.integer()} < h"))


def with_words_moved(draw: Random) -> bytes:
    """The seed with some words dropped, doubled, swapped, replaced or joined."""
    words = [*spellings().values(), *WORDS]
    text = SEED.split(" ")
    for _ in range(draw.choice((0, 1, 1, 2, 3, 8, 40))):
        at = draw.randrange(len(text))
        match draw.randrange(5):
            case 0:
                del text[at]
                text = text or [""]
            case 1:
                text.insert(at, text[draw.randrange(len(text))])
            case 2:
                other = draw.randrange(len(text))
                text[at], text[other] = text[other], text[at]
            case 3:
                text[at] = draw.choice(words)
            case _:
                text.insert(at, draw.choice(words))
    return with_bytes_changed(draw, draw.choice((" ", " ", "\n")).join(text).encode(), draw.choice((0, 0, 0, 1, 5)))


def with_bytes_changed(draw: Random, data: bytes, changes: int) -> bytes:
    """The bytes with some of them changed, cut out, doubled, or joined by ones that are no text."""
    changed = bytearray(data)
    for _ in range(changes):
        at = draw.randrange(len(changed) + 1)
        match draw.randrange(6):
            case 0:
                del changed[at : at + draw.choice((1, 1, 20))]
            case 1:
                changed[at:at] = draw.choice(BYTES)
            case 2:
                changed[at:at] = changed[at // 2 : at // 2 + draw.choice((1, 60))]
            case 3:
                changed[at : at + 1] = bytes([draw.randrange(256)])
            case _:
                changed[at : at + 1] = bytes([draw.randrange(9, 127)])
    return bytes(changed)


def damaged(draw: Random) -> bytes:
    """A text of another kind with bytes changed; what else it was does not matter."""
    return with_bytes_changed(draw, draw.choice((drawn_from_the_grammar, written))(draw), draw.choice((1, 2, 4, 30)))


KINDS: Mapping[Callable[[Random], bytes], int] = {
    drawn_from_the_grammar: 40,
    written: 10,
    with_words_moved: 20,
    damaged: 30,
}
"""Every kind, and how many of a hundred texts are of it: less of those that take long to check."""


def text(kind: Callable[[Random], bytes], number: int) -> bytes:
    return kind(Random(f"{kind.__name__} {number}"))
