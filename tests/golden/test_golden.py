"""What every stage of the compiler makes of every example pattern, as files; `--update-golden` writes them.

One folder a pattern: `terms.txt`, `bands.txt`, `tiles.txt` and `plan.txt` (target cpu), `layout.txt`, and sources for
cpu (`forward.cpp`) and for cuda:90 (`forward.triton.txt`, Python text): of each pass for the patterns of KNOWN, of the
forward pass for the others. Definitions that stand in a source before it (those of KNOWN, in order, and the pattern's
own) are left out, and of changed ones the lines that did not, but for the first pattern's: see `differences`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest
from differences import difference

import sparsec
from sparsec.backends.base import PARTS
from sparsec.cli.lower import stage_text
from sparsec.pipeline import Compilation
from sparsec.plan.kv.cached import NoCache

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
FILES = {
    name: path
    for path in (*sorted(EXAMPLES.glob("*.sparse")), HERE / "drawn.sparse")
    for name in sparsec.load(path).patterns
} | {
    name: EXAMPLES / "inputs" / f"{file}.sparse"
    for file, name in (("quest", "quest_pages"), ("minference", "minference"))
}
"""Of the examples with inputs two: lists of rows and a length, and lists for all queries."""
KNOWN = ("s2", "drawn", "gemma2_full", "packed_window", "lm_infinite")
"""Together they have what the templates print: a cache, lists, a modifier, documents, a ring of slots."""
STAGES = ("terms", "bands", "tiles", "plan", "layout")
SOURCES = {"cpp": ("cpu", "float32", "cpp"), "triton": ("cuda:90", "bfloat16", "triton.txt")}
"""Target, dtype and the ending of the files."""


def kinds(name: str) -> list[str]:
    """The files of a pattern."""
    passes = PARTS if name in KNOWN else PARTS[:1]
    return [*(f"{each}.txt" for each in STAGES), *(f"{of}.{end}" for *_, end in SOURCES.values() for of in passes)]


def compilation(name: str, target: str, dtype: str) -> Compilation:
    pattern = sparsec.load(FILES[name]).pattern(name)
    return Compilation(pattern.lowered(pattern.heads or 16, pattern.kv_heads or 8), 128, 128, dtype, target)


def stage(of_pattern: Compilation, stage: str, of: str, name: str) -> str:
    try:
        return stage_text(of_pattern, stage, of, name=name)
    except NoCache as error:
        return f"no cache: {error}\n"


@cache
def sources(name: str, language: str) -> Mapping[str, str]:
    """The complete sources of a pattern, by file."""
    target, dtype, end = SOURCES[language]
    found = compilation(name, target, dtype)
    return {file: stage(found, language, of, name) for of in PARTS if (file := f"{of}.{end}") in kinds(name)}


@cache
def texts(name: str) -> Mapping[str, str]:
    """What the pattern's files hold."""
    found = compilation(name, "cpu", "float32")
    result = {f"{each}.txt": stage(found, each, "forward", name) for each in STAGES}
    for language in SOURCES:
        before = takewhile(lambda known: known != name, KNOWN)
        known = [text for other in before for text in sources(other, language).values()]
        for file, text in sources(name, language).items():
            result[file] = difference(text, known, whole=name == KNOWN[0])
            known.append(text)
    return result


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in FILES for kind in kinds(name)])
def test_golden(name: str, kind: str, update_golden: bool) -> None:
    path = HERE / name / kind
    text = texts(name)[kind]
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{path.name} of {name} is missing: run pytest with --update-golden, and read the change"
    assert text == path.read_text(encoding="utf-8"), f"{name}/{kind} differs: --update-golden, and read the change"


def test_no_golden_file_is_left_over() -> None:
    folders = {path for path in HERE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {path.name for path in folders} == set(FILES)
    assert {path for folder in folders for path in folder.iterdir()} == {
        HERE / name / kind for name in FILES for kind in kinds(name)
    }
