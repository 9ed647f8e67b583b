"""What holds for every source file: its length, one thing for a public name, one file for the name of a test module.

Invariant: where two modules define one name, TWICE has the reason.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "sparsec").rglob("*.py"))
FILES = sorted(
    path for folder in ("sparsec", "templates", "tests", "examples") for path in (ROOT / folder).rglob("*.py")
)
LINES = 400
TREES = "the same question of another stage's nodes"
STAGE = "the stage's entry point: `syntax.parse` and `sema.check`, and over them `program.parse` and `program.check`"
KINDS = "the same part of two kinds of counterexamples, called through their modules"
TWICE = {
    "Parameter": TREES,
    "check": STAGE,
    "contains": TREES,
    "evaluate": TREES,
    "fails": KINDS,
    "holds": TREES,
    "integer": "an argument of a call; a node of the checked tree",
    "parse": STAGE,
    "picture": KINDS,
    "print_expr": TREES,
}
"""Name -> why several modules define it."""


def command(name: str, path: str) -> bool:
    """Whether the function is the command that the file is named for; users name it."""
    return path == f"sparsec/cli/{name}.py"


def rooms(paths: list[str]) -> bool:
    """Whether the definitions are the same part of several backends, which may not import each other."""
    parts = [Path(path).parts for path in paths]
    return all(each[:2] == ("sparsec", "backends") for each in parts) and len({each[2] for each in parts}) == len(parts)


def public(path: Path) -> Iterator[str]:
    """Names of the classes and functions that a module defines."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) if not name.startswith("_"):
                yield name


def homes() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in SOURCES:
        for name in dict.fromkeys(public(path)):
            found.setdefault(name, []).append(str(path.relative_to(ROOT)))
    return found


def test_a_public_name_stands_for_one_thing() -> None:
    own = {name: [path for path in paths if not command(name, path)] for name, paths in homes().items()}
    twice = {name: paths for name, paths in own.items() if len(paths) > 1 and not rooms(paths)}
    assert {name: paths for name, paths in twice.items() if name not in TWICE} == {}
    assert set(TWICE) <= set(twice), "a reason that nothing needs"


def test_no_file_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: count for name, count in lengths.items() if count > LINES} == {}


def test_a_module_of_tests_has_a_name_of_its_own() -> None:
    """pytest imports it by that name alone: it cannot collect a second file of it."""
    names = Counter(path.name for path in FILES if path.name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []
