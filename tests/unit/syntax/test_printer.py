"""The canonical format: spacing, fewest parentheses, and where comments go."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsec.diagnostics.source import SourceFile
from sparsec.syntax import tree
from sparsec.syntax.parser import parse
from sparsec.syntax.printer import print_expr, print_file
from sparsec.testing.trees import same_tree


def formatted(text: str) -> str:
    file, diagnostics = parse(SourceFile("t.sparse", text))
    assert file is not None, diagnostics
    return print_file(file)


def test_a_file_with_comments_everywhere() -> None:
    text = """\
# head

# doc of x
param x = 3 # trail
param # c1
  # c2
  y = 4 # c3
param z = 4k*(2+3)
pattern p( # a
  # b
  a = 1, b = [0,4..8, 3 ..],) { # c
   # first
   attend full # t1
     | (none # t2
     & ~(sink(4)|window( 3b , ahead=-2))) # t3


   where (not (g==1)) and ((h in 0..3) or -g%2>=1) attend columns(0 .. prefix) - (rows(a+1 ..) - none) causal
   # last
} # end
model m{}
# bye"""
    assert (
        formatted(text)
        == """\
# head

# doc of x
param x = 3  # trail
param y = 4  # c1
# c2

# c3

param z = 4k * (2 + 3)

pattern p(a = 1, b = [0, 4..8, 3 ..]) {  # a
    # b
    # c
    # first
    attend full  # t1
        # t2
        | none & ~(sink(4) | window(3b, ahead = -2))  # t3

    where not g == 1 and (h in 0..3 or -g % 2 >= 1) attend columns(0..prefix)
        - (rows(a + 1 ..) - none)
    causal
    # last
}  # end

model m {
}

# bye
"""
    )
    assert formatted(formatted(text)) == formatted(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only\n",
        "\n\n# a\n\n\n# b\n",
        "pattern p { heads 32 kv 8 scale 1/128 input v : columns use q otherwise use q }",
    ],
)
def test_printing_is_idempotent_and_keeps_the_tree(text: str) -> None:
    once = formatted(text)
    assert formatted(once) == once
    before, after = (parse(SourceFile("t.sparse", each))[0] for each in (text, once))
    assert before is not None and after is not None and same_tree(before.items, after.items)


def test_consecutive_arms_are_aligned() -> None:
    text = (
        "model m { layers 3 where l == 0 use p otherwise use q } pattern p { scale 1/128 where h<3 attend full causal }"
    )
    assert (
        formatted(text)
        == """\
model m {
    layers 3
    where l == 0 use p
    otherwise    use q
}

pattern p {
    scale 1/128
    where h < 3 attend full
    causal
}
"""
    )


def test_the_examples_are_in_the_canonical_format() -> None:
    examples = sorted((Path(__file__).parents[3] / "examples").glob("*.sparse"))
    assert examples
    for path in examples:
        text = path.read_text(encoding="utf-8")
        assert formatted(text) == text, path.name


def test_every_comment_survives_at_every_place() -> None:
    text = "param n = 4 pattern p ( a = 1 , b = [ 2 ] ) { heads 8 attend f ( n , k = 1 .. ) | g } model m { use p }"
    words = text.split()
    for place in range(len(words) + 1):
        for comment in ("# note\n", "\n# note\n", "\n\n# note\n\n# more\n"):
            text = " ".join((*words[:place], comment, *words[place:]))
            once = formatted(text)
            assert once.count("# note") == 1 and once.count("# more") == text.count("# more"), text
            assert formatted(once) == once, text
            before, after = (parse(SourceFile("t.sparse", each))[0] for each in (text, once))
            assert before is not None and after is not None and same_tree(before.items, after.items), text


@pytest.mark.parametrize(
    "text",
    [
        "a - (b - c)",
        "(a | b) & c",
        "~(a | b)",
        "(not a) == b",
        "-(a + b)",
        "(a == b) == c",
        "[1 .., .. a + 1]",
        "(0..4) == r",
    ],
)
def test_expressions_keep_the_parentheses_they_need(text: str) -> None:
    file, _ = parse(SourceFile("t.sparse", f"pattern p {{ let x = ({text}) }}"))
    assert file is not None
    (item,) = file.items
    assert isinstance(item, tree.PatternItem) and isinstance(item.statements[0], tree.LetStatement)
    assert print_expr(item.statements[0].value).replace("(0..4)", "0..4") == text.replace("(0..4)", "0..4")


WIDE = "    attend " + " | ".join(f"columns({n}..{n + 4})" for n in range(0, 60, 10))
LIST = "    let xs = [" + ", ".join(map(str, range(40))) + "]"


def test_what_is_too_wide_goes_on_in_further_lines() -> None:
    parameters = ", ".join(f"parameter{n} = {n}" for n in range(8))
    text = formatted(f"pattern p({parameters}) {{\n{LIST}\n{WIDE}\n    let short = sink(4) | window(8)\n}}\n")
    assert max(map(len, text.splitlines())) <= 100
    assert "    attend columns(0..4)\n        | columns(10..14)\n        | columns(20..24)\n" in text
    assert "    let xs = [\n        0, 1, 2," in text and "\n    ]\n" in text
    assert text.startswith("pattern p(\n    parameter0 = 0,") and "\n) {\n" in text
    assert "    let short = sink(4) | window(8)\n" in text
    assert formatted(text) == text


def test_comments_of_operands_stay_at_their_lines() -> None:
    text = (
        "pattern p {\n    attend window(8b)  # local\n        # far away\n        | stride(8b)  # by head\n"
        "        | sink(4)  # last\n    # after\n    let x = sink(1)\n}\n"
    )
    assert formatted(text) == text
    apart = text.replace("        # far away\n", "\n        # far away\n\n")
    assert formatted(apart) == text
