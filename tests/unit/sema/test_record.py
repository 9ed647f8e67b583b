"""Resolved patterns as data: what comes back is what went, and nothing that the language forbids comes in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sparsec
from sparsec.sema.printer import sparse_text
from sparsec.sema.record import heads_data, heads_of

EXAMPLES = Path(__file__).parents[3] / "examples"
TEXT = """
pattern p {
    heads 4 kv 2  block 16  causal  scale 1/7  softcap 3  alibi  learned_sink  documents
    attend (window(9) | stride(3b, phase = h) & columns(3 .. -4)) - ~(random(2, seed = -5) | chunk(8) & global(2b))
}
"""


def data() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(heads_data(sparsec.parse(TEXT).pattern().resolve())))
    return found


def examples() -> list[tuple[str, str]]:
    return [(file.name, name) for file in sorted(EXAMPLES.glob("*.sparse")) for name in sparsec.load(file).patterns]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example[1])
def test_examples_come_back_whole(example: tuple[str, str]) -> None:
    pattern = sparsec.load(EXAMPLES / example[0]).pattern(example[1])
    resolved = pattern.resolve(pattern.heads or 32, pattern.kv_heads or 8)
    back = heads_of(json.loads(json.dumps(heads_data(resolved))))
    assert back == resolved
    assert len({id(term) for term in back.terms}) == len(set(resolved.terms)), "equal heads share one term"


def test_every_construct_comes_back() -> None:
    assert heads_of(data()) == sparsec.parse(TEXT).pattern().resolve()


def test_slopes_come_back() -> None:
    resolved = sparsec.parse("pattern p { heads 2  causal  alibi [1/2, 1/3]  attend full }").pattern().resolve()
    assert heads_of(json.loads(json.dumps(heads_data(resolved)))) == resolved


INPUTS = """
pattern p {
    heads 4 kv 2  block 16
    input prefix : length  input marks : tokens  input far : columns(blocks)  input near : slashes(tiles)
    input picks : rows  input cells : blocks  input tiles : blocks(8, 3b)  input spans : labels  input drafts : tree
    input counts : weights
    key_bias counts
    attend (window(prefix, ahead = 2) | sink(prefix) | columns(4 .. prefix) | columns(prefix .. -4) | rows(.. prefix))
        & (marks | far | near | picks) - (cells & ~tiles) | spans & drafts
}
"""


def test_inputs_come_back() -> None:
    resolved = sparsec.parse(INPUTS).pattern().resolve()
    back = heads_of(json.loads(json.dumps(heads_data(resolved))))
    assert back == resolved
    assert [decl.tile for decl in back.inputs if decl.kind.value == "blocks"] == [None, (8, 48)]


def test_the_text_of_a_pattern_with_inputs_says_the_same() -> None:
    resolved = sparsec.parse(INPUTS).pattern().resolve()
    again = sparsec.parse(sparse_text(resolved)).pattern().resolve()
    assert sparse_text(again).split("  #")[0] == sparse_text(resolved).split("  #")[0]
    assert [(decl.name, decl.kind, decl.unit, decl.tile) for decl in again.inputs] == [
        (decl.name, decl.kind, decl.unit, decl.tile) for decl in resolved.inputs
    ]
    assert again.score == resolved.score


def node_of(found: dict[str, Any], kind: str) -> list[Any]:
    node: list[Any] = next(row for row in found["nodes"] if row[0] == kind)
    return node


WRONG_INPUTS: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("a list for a term", lambda d: node_of(d, "Input").__setitem__(1, 0)),
    ("no such input", lambda d: node_of(d, "Input").__setitem__(1, 10)),
    ("a negative input", lambda d: node_of(d, "Input").__setitem__(1, -1)),
    ("weights for a term", lambda d: node_of(d, "Input").__setitem__(1, 9)),
    ("a list for a length", lambda d: node_of(d, "Window").__setitem__(1, [1])),
    ("two lengths", lambda d: node_of(d, "Window").__setitem__(1, [0, 0])),
    ("no length", lambda d: node_of(d, "Sink").__setitem__(1, [])),
    ("a run-time reach", lambda d: node_of(d, "Window").__setitem__(2, [0])),
    ("a run-time length in blocks", lambda d: node_of(d, "Sink").__setitem__(2, True)),
    ("a range of blocks with a run-time end", lambda d: node_of(d, "Columns").__setitem__(3, True)),
    ("a range that ends before the start", lambda d: node_of(d, "Columns").__setitem__(slice(1, 3), [[0], 0])),
    ("a run-time phase", lambda d: d["nodes"].insert(0, ["Stride", 2, [0], False])),
    ("a run-time chunk", lambda d: d["nodes"].insert(0, ["Chunk", [0], 0])),
    ("a term as key_bias", lambda d: d["score"]["modifiers"].update(key_bias=1)),
    ("nothing as key_bias", lambda d: d["score"]["modifiers"].update(key_bias=None)),
    ("a name that is no name", lambda d: d["inputs"][0].__setitem__(0, "x; }")),
    ("a name with a line", lambda d: d["inputs"][0].__setitem__(0, "x\n")),
    ("a keyword", lambda d: d["inputs"][0].__setitem__(0, "attend")),
    ("a long name", lambda d: d["inputs"][0].__setitem__(0, "x" * 129)),
    ("a name twice", lambda d: d["inputs"][1].__setitem__(0, "prefix")),
    ("an unknown kind", lambda d: d["inputs"][0].__setitem__(1, "mask")),
    ("a unit that the kind has not", lambda d: d["inputs"][1].__setitem__(2, "blocks")),
    ("an unknown unit", lambda d: d["inputs"][2].__setitem__(2, "pages")),
    ("a tile of a list", lambda d: d["inputs"][2].__setitem__(3, [16, 16])),
    ("a tile without sides", lambda d: d["inputs"][6].__setitem__(3, [])),
    ("an empty tile", lambda d: d["inputs"][6].__setitem__(3, [0, 16])),
    ("a line before the first", lambda d: d["inputs"][0].__setitem__(4, 0)),
    ("too few values", lambda d: d["inputs"][0].pop()),
    ("an input that is no list", lambda d: d["inputs"].__setitem__(0, "prefix")),
    ("inputs that are no list", lambda d: d.update(inputs=None)),
    ("a tree in documents", lambda d: d.update(documents="documents")),
]


@pytest.mark.parametrize(("what", "spoil"), WRONG_INPUTS, ids=[what for what, _ in WRONG_INPUTS])
def test_wrong_inputs_stay_out(what: str, spoil: Callable[[dict[str, Any]], object]) -> None:
    found = json.loads(json.dumps(heads_data(sparsec.parse(INPUTS).pattern().resolve())))
    heads_of(found)
    spoil(found)
    with pytest.raises(ValueError, match=r"expected|not a valid"):
        heads_of(found)


def test_a_shared_term_is_written_once() -> None:
    pattern = sparsec.parse("pattern p { heads 4096  causal  attend window(9) | sink(4) }").pattern()
    assert len(heads_data(pattern.resolve())["nodes"]) == 8


def with_node(*row: Any) -> Callable[[dict[str, Any]], None]:
    """Puts the last head's term to a node of its own."""

    def change(given: dict[str, Any]) -> None:
        given["nodes"].append(list(row))
        given["terms"][-1] = len(given["nodes"]) - 1

    return change


def doubled(times: int) -> Callable[[dict[str, Any]], None]:
    def change(given: dict[str, Any]) -> None:
        for _ in range(times):
            last = len(given["nodes"]) - 1
            given["nodes"].append(["Union", [last, last]])

    return change


def nested(given: dict[str, Any]) -> None:
    for _ in range(1000):
        given["nodes"].append(["Complement", len(given["nodes"]) - 1])


def put(**changed: Any) -> Callable[[dict[str, Any]], None]:
    return lambda given: given.update(changed)


def scored(**changed: Any) -> Callable[[dict[str, Any]], None]:
    return lambda given: given["score"].update(changed)


def modified(**changed: Any) -> Callable[[dict[str, Any]], None]:
    return lambda given: given["score"]["modifiers"].update(changed)


@pytest.mark.parametrize(
    "change",
    [
        with_node("Input", 0),
        with_node("Window", 0, 0, False),
        with_node("Window", 1, -1, False),
        with_node("Window", 1, 0, 1),
        with_node("Window", True, 0, False),
        with_node("Window", 1.0, 0, False),
        with_node("Window", 1 << 31, 0, False),
        with_node("Window", 1 << 27, 0, True),
        with_node("Window", 1),
        with_node("Sink", -1, False),
        with_node("Stride", 0, 0, False),
        with_node("Stride", 3, 3, False),
        with_node("Dilated", 3, -1, False),
        with_node("Chunk", 0, 0),
        with_node("Columns", 3, 3, False),
        with_node("Columns", None, 0, False),
        with_node("Rows", -3, -5, False),
        with_node("Columns", "0", None, False),
        with_node("Random", 0, 0, 0),
        with_node("Random", 4097, 0, 0),
        with_node("Union", []),
        with_node("Union", [999]),
        with_node("Union", [-1]),
        with_node("At", 0, "1 */ system();"),
        with_node("Complement", None),
        with_node("__class__"),
        with_node(),
        doubled(60),
        nested,
        put(heads=5),
        put(heads=4097),
        put(heads=0),
        put(kv_heads=3),
        put(block=24),
        put(block=2048),
        put(documents="all"),
        put(documents=[]),
        put(terms=[0, 0, 0]),
        put(terms=[0, 0, 0, 10**6]),
        put(nodes=None),
        put(more=1),
        scored(scale=0.0),
        scored(scale=float("inf")),
        scored(scale="1"),
        scored(scale=1e-31),
        scored(more=1),
        scored(modifiers=[]),
        modified(softcap=float("nan")),
        modified(softcap=1e31),
        modified(softcap=None),
        modified(softcap=[3.0] * 4),
        modified(alibi=1),
        modified(alibi=True),
        modified(alibi=[0.5]),
        modified(alibi=[0.5, 0.5, 0.5, -0.5]),
        modified(alibi=[0.5, 0.5, 0.5, float("inf")]),
        modified(alibi=[0.5, 0.5, 0.5, True]),
        modified(learned_sink=True),
        modified(learned_sink=[]),
        modified(more=None),
    ],
)
def test_what_the_language_forbids_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    given = data()
    change(given)
    with pytest.raises(ValueError):
        heads_of(given)


@pytest.mark.parametrize("given", [None, [], "pattern", {}, {"heads": 1}])
def test_other_data_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="expected a pattern with"):
        heads_of(given)
