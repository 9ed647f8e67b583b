"""What an editor says of a word: its meaning, its value for the heads, and how much of a pattern is live."""

from __future__ import annotations

import pytest
from marked import marked

import sparsec
from sparsec.analysis.coverage import pattern_coverage
from sparsec.editor.document import Document, Settings
from sparsec.editor.hover import hover_at
from sparsec.editor.live import pattern_share

FILE = """\
param far = 2k
# Half of the *heads* see far: [link](x).
pattern p(near = 2b, kinds = [0, 2]) {
    heads 4 kv 2
    block 32
    causal
    input picks : rows(blocks)
    let reach = near * (h + 1)
    let odd = h % 2 == 1 and h in kinds
    where g == 0 attend window(reach) | picks
    otherwise    attend window(far) & stride(4b, phase = -h)
}
pattern open(every = 4b) { causal  attend stride(every, phase = g) | window(1b) }
model m {
    layers 6
    where l >= L // 2 use p(near = 3b)
    otherwise         use open
}
"""


def hover(mark: str, within: int = 0, text: str = FILE, settings: Settings | None = None) -> str:
    found = hover_at(Document("f.sparse", text), text.index(mark) + within, settings or Settings())
    return "" if found is None else found.markdown


def test_a_term_has_its_formula_and_its_value_by_head() -> None:
    said = hover("window(reach)")
    assert "`0 <= i - j < n`" in said and "`0 <= qb - kb < n`" in said and "KV" not in said
    assert "`ahead`: a length in the unit of the first argument, at least 0, 0 if left out" in said
    assert "- head 0: `window(2b)`" in said and "- head 3: `window(8b)`" in said
    assert "value: `window(2048)`" in hover("window(far)")
    assert "- head 1: `stride(4b, phase=3)`" in hover("stride(4b")


def test_names_and_numbers_have_values() -> None:
    assert "value: `2048`" in hover("far = 2k") and "value: `2048`" in hover("far)")
    assert "near = 2b  # parameter of p" in hover("near * (h")
    assert "value: `2b`, 64 tokens" in hover("near * (h")
    assert "- head 1: `4b`, 128 tokens" in hover("reach = ")
    assert "- head 1: `4b`, 128 tokens" in hover("window(reach)", 8)
    assert "value: `[0, 2]`" in hover("kinds = ")
    assert "value: `4b`, 128 tokens" in hover("4b, phase")
    assert hover("2k").startswith("value: `2048`")
    assert "the query head" in hover("h + 1") and "head 0" not in hover("h + 1")
    assert "- head 0..2: `0`\n- head 2..4: `1`" in hover("g == 0")
    assert "value: `6`" in hover("L // 2")


def test_an_operation_has_a_value() -> None:
    assert "- head 0, 2: `false`\n- head 1, 3: `true`" in hover("== 1")
    assert "value: `false`" in hover("and h in")
    assert "- layer" not in hover("// 2") and "value: `3`" in hover("// 2")
    assert "- layer 0..3: `false`\n- layer 3..6: `true`" in hover(">= L")
    assert "- head 0, 2: `0`" in hover("% 2")


def test_items_have_their_documentation_and_share() -> None:
    said = hover("p(near = 2b")
    assert "pattern p(near = 2b, kinds = [0, 2])" in said
    assert r"Half of the \*heads\* see far\: \[link\]\(x\)\." in said
    assert "at most" in said and "live at 8192 tokens (4 heads, 2 KV heads)" in said
    assert "pattern p(near = 2b, kinds = [0, 2])" in hover("p(near = 3b)")
    assert "- layers 0..3: `open`\n- layers 3..6: `p(near = 3b)`" in hover("m {")
    assert "assumed" in hover("open(every")
    assert hover("m {", text=FILE.replace("layers 6", "")) == "```sparse\nmodel m\n```"


def test_inputs_kinds_and_arguments_are_explained() -> None:
    assert "j, or kb, is in the list of query i" in hover("picks :")
    assert "j, or kb, is in the list of query i" in hover("rows(blocks)")
    assert hover("rows(blocks)", 5) == hover("rows(blocks)")
    assert "`phase`" in hover("phase = -h") and "kept modulo" in hover("phase = -h")
    assert "near = 2b  # parameter of p" in hover("near = 3b")


def test_settings_give_the_heads_of_an_open_pattern() -> None:
    told = Settings(heads=2, kv_heads=1)
    assert "value: `0`" in hover("g) | window", text=FILE, settings=told)
    assert "(2 heads, 1 KV heads assumed)" in hover("open(every", settings=told)
    assert "(8 heads, 8 KV heads assumed)" in hover("open(every", settings=Settings(kv_heads=3))


def test_an_error_elsewhere_leaves_the_rest_as_it_is() -> None:
    broken = FILE.replace("model m {", "pattern q { attend window( | }\npattern r { attend nope }\nmodel m {")
    for mark in ("window(reach)", "stride(4b", "near * (h", "open(every", "== 1", "4b, phase"):
        assert hover(mark, text=broken) == hover(mark), mark
    same = FILE.replace("let odd = h % 2", "let odd = nope % 2")
    assert "- head 0: `window(2b)`" in hover("window(reach)", text=same)
    half = FILE.replace("where g == 0 attend window(reach) | picks", "where g == attend window(reach) | ")
    assert "- head 1: `4b`, 128 tokens" in hover("reach = ", text=half)


@pytest.mark.parametrize("text", ["pattern p { @ attend full }", "# wind@ow", "pattern p { attend no@pe }", "@"])
def test_what_has_nothing_to_say(text: str) -> None:
    assert hover_at(*marked(text), Settings()) is None


def test_markdown_of_a_text_is_inert() -> None:
    text = "# ![x](http://y) <b> `z` ```\n# command:x www.y.org me@y.org\npattern p { attend full }\n"
    said = hover("p {", text=text)
    assert r"\!\[x\]\(http\://y\) \<b\> \`z\` \`\`\` command\:x www\.y\.org me\@y\.org" in said


def test_the_share_is_that_of_the_pattern() -> None:
    document = Document("f", FILE)
    share = pattern_share(document, "open", Settings(heads=4, kv_heads=2, seq_len=1000))
    assert share is not None and share.exact and share.causal
    mask = sparsec.parse(FILE).pattern("open").mask(1000, 1000, heads=4, kv_heads=2)
    assert share.fraction == pytest.approx(mask.sum().item() / (4 * 1000 * 1001 / 2))
    assert share.short == f"{share.fraction * 100:.3g}% live"
    covered = pattern_coverage(sparsec.parse(FILE).pattern("open").lowered(4, 2), 1000)
    assert share.fraction == sum(len(head.heads) * head.live_pairs for head in covered) / (4 * 1000 * 1001 / 2)


def test_a_pattern_with_an_error_has_no_share() -> None:
    document = Document("f", "pattern p { heads 3 kv 2  attend full }\npattern q { attend p | nope }\npattern r { }")
    assert [pattern_share(document, name, Settings()) for name in ("p", "q", "r", "s")] == [None] * 4


def test_every_place_of_an_example_can_be_asked(example: str) -> None:
    document, settings = Document("example", example), Settings(seq_len=256)
    said = [hover_at(document, each.span.start, settings) for each in document.names.occurrences]
    assert all(found is not None and found.markdown for found in said)
