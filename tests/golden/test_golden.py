"""What every stage of the compiler makes of every example pattern, as files; `--update-golden` writes them.

One folder a pattern: `terms.txt`, `bands.txt`, `tiles.txt` and `plan.txt` (target cpu), `layout.txt`, and sources for
cpu (`forward.cpp`) and for cuda:90 (`forward.triton.txt`, Python text): of each pass for the patterns of KNOWN, of the
forward pass for the others. What a source has from templates/BACKEND/kernels is named alone. Else the forward kernels
of the first pattern are whole, and so are the sources of FULL together: a definition is left out that stands in a
source before it (in the order of FULL and PARTS), and of a changed one the lines that do. Of other patterns those lines
are left that differ in more than numbers from all before them, those of KNOWN included, under a digest of all lines.
`differences` has the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest
from differences import difference, forms, laid_out, named, parts_of, restored

import sparsec
from sparsec.backends.base import PARTS
from sparsec.backends.cpu.source import parsed_header
from sparsec.backends.triton.sources import functions
from sparsec.cli.lower import stage_text
from sparsec.pipeline import Compilation
from sparsec.plan.kv.cached import NoCache

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXAMPLES = ROOT / "examples"
KERNELS = ROOT / "templates"
FILES = {
    name: path
    for path in (*sorted(EXAMPLES.glob("*.sparse")), HERE / "drawn.sparse")
    for name in sparsec.load(path).patterns
} | {
    name: EXAMPLES / "inputs" / f"{file}.sparse"
    for file, name in (("quest", "quest_pages"), ("minference", "minference"))
}
"""Of the examples with inputs two: lists of rows and a length, and lists for all queries."""
FULL = ("s2", "drawn", "lm_infinite")
"""Together they have loops, a cache with two kinds of regions, and lists."""
KNOWN = (*FULL, "gemma2_full", "packed_window")
"""Further, a modifier and documents: what the templates print but for inputs."""
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
def kernels(language: str) -> Mapping[str, str]:
    """What sources take as it is: headers, without directives, and functions; each by its file."""
    if language == "triton":
        files = {path: path.read_text(encoding="utf-8") for path in sorted((KERNELS / "triton/kernels").rglob("*.py"))}
        return {
            f"{path.relative_to(KERNELS)}: {name}": function.source
            for path, text in files.items()
            for name, function in functions().items()
            if f"def {name}(" in text
        }
    names = {path: str(path.relative_to(KERNELS)) for path in sorted((KERNELS / "cpu/kernels").rglob("*.h"))}
    headers = {name: parsed_header(path.read_text(encoding="utf-8"), name) for path, name in names.items()}
    return {name: header.text.strip() for name, header in headers.items() if header.text and "/printed/" not in name}


@cache
def texts(name: str) -> Mapping[str, str]:
    """What the pattern's files hold."""
    found = compilation(name, "cpu", "float32")
    result = {f"{each}.txt": stage(found, each, "forward", name) for each in STAGES}
    for language in SOURCES:
        before = takewhile(lambda known: known != name, KNOWN)
        known = [text for other in before for text in sources(other, language).values()]
        for file, text in sources(name, language).items():
            if not known:
                result[file] = laid_out(named(text, kernels(language)))
            elif name in FULL:
                result[file] = difference(text, known, kernels(language))
            else:
                result[file] = forms(text, known, kernels(language))
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


@pytest.mark.parametrize("language", SOURCES)
def test_a_forward_kernel_is_whole_with_what_is_named(language: str) -> None:
    (file, text), *_ = sources(FULL[0], language).items()
    assert restored(texts(FULL[0])[file], kernels(language)) == parts_of(text)


def test_no_golden_file_is_left_over() -> None:
    folders = {path for path in HERE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {path.name for path in folders} == set(FILES)
    assert {path for folder in folders for path in folder.iterdir()} == {
        HERE / name / kind for name in FILES for kind in kinds(name)
    }
