"""What docstrings, comments and READMEs name in backticks exists: `a.b` is a module or an attribute, a path is a file.

Invariant: a name that is found nowhere is a failure, so a module that moves takes its mentions along.
"""

from __future__ import annotations

import ast
import importlib
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("grammar", "templates", "sparsec", "tests", "examples")
SOURCES = sorted((ROOT / "sparsec").rglob("*.py"))
PAGES = sorted(
    each
    for each in (*ROOT.glob("*.md"), *(each for folder in FOLDERS for each in (ROOT / folder).rglob("*.md")))
    if "node_modules" not in each.parts
)
DOTTED = re.compile(r"(?<!`)`([A-Za-z_]\w*(?:\.\w+)+)(?:\(\))?`")
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
QUOTED = re.compile(r"`([^`\n]+)`")
LINKED = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
FILE = re.compile(
    r"[\w./*-]*\w\.(?:py|md|toml|txt|sh|sparse|lark|jinja|svg|cpp|h)|(?=.*[a-z])[\w.*-]*/[\w./*-]*|\.[a-z]+-[\w.-]+"
)
ALIASES = {"tl": "triton.language"}
MADE = re.compile(r".*\.json|mine\.sparse|kernels\.h|\.(?:venv|wheels)\b.*|build/gpu|i/n")
"""What commands write, and no checkout holds; a placeholder."""

Names = Mapping[str, tuple[object, ...]]


@cache
def module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


@cache
def classes() -> dict[str, tuple[object, ...]]:
    """Name of a class of sparsec -> the classes of that name."""
    found: dict[str, tuple[object, ...]] = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and (here := module(module_name(path))):  # some import vLLM, say
                found[node.name] = (*found.get(node.name, ()), getattr(here, node.name))
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def member(owner: object, name: str) -> object:
    """What `owner.name` is; for a field, its name; None where there is no such attribute."""
    if isinstance(owner, ModuleType):
        return getattr(owner, name, None) or module(f"{owner.__name__}.{name}")
    annotated = {key for base in getattr(owner, "__mro__", ()) for key in vars(base).get("__annotations__", ())}
    return getattr(owner, name, None) or (name if name in annotated else None)


def reaches(owner: object, rest: list[str]) -> bool:
    for name in rest:
        owner = member(owner, name)
        if owner is None:
            return False
    return True


def meanings(first: str, home: str, local: Names) -> Iterator[object]:
    """All that a text in module or package `home` may mean by `first`."""
    yield from local.get(first, ())
    own = module(home)
    if hasattr(own, first):
        yield getattr(own, first)
    while home:  # a neighbour, or a neighbour of a package around it, `sparsec` itself included
        if found := module(f"{home}.{first}"):
            yield found
        home = home.rpartition(".")[0]
    yield from classes().get(first, ())
    if found := module(first):
        yield found


def exists(dotted: str, home: str, local: Names) -> bool:
    first, *rest = dotted.split(".")
    first = ALIASES.get(first, first)
    return any(reaches(owner, rest) for owner in meanings(first, home, local))


def named(node: ast.AST, home: str) -> tuple[object, ...]:
    """The classes that an annotation, or an import from elsewhere, names."""
    names = [
        name.id if isinstance(name, ast.Name) else name.attr
        for name in ast.walk(node)
        if isinstance(name, ast.Name | ast.Attribute)
    ]
    here = module(home)
    return tuple(each for name in names for each in (*classes().get(name, ()), getattr(here, name, None)) if each)


def texts(tree: ast.Module, home: str) -> Iterator[tuple[str, dict[str, tuple[object, ...]]]]:
    """Every docstring, and the names that its function's parameters and its class's fields give to it."""

    def within(
        node: ast.AST, local: dict[str, tuple[object, ...]]
    ) -> Iterator[tuple[str, dict[str, tuple[object, ...]]]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            local = local | {each.arg: named(each.annotation, home) for each in given if each.annotation}
        if isinstance(node, ast.ClassDef):
            fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
            local = local | {
                each.target.id: named(each.annotation, home) for each in fields if isinstance(each.target, ast.Name)
            }
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.Expr(ast.Constant(str(text))):
                    yield text, local
                case ast.stmt():
                    yield from within(child, local)

    imported: dict[str, tuple[object, ...]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for each in node.names:
                if (found := getattr(module(node.module), each.name, None)) is not None:
                    imported[each.asname or each.name] = (found,)
    return within(tree, imported)


def comments(text: str) -> Iterator[str]:
    return (
        each.string for each in tokenize.generate_tokens(io.StringIO(text).readline) if each.type == tokenize.COMMENT
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_in_docstrings_and_comments(path: Path) -> None:
    text, home = path.read_text(encoding="utf-8"), module_name(path)
    tree = ast.parse(text)
    said = [*texts(tree, home), *((comment, {}) for comment in comments(text))]
    missing = {name for each, local in said for name in DOTTED.findall(each) if not exists(name, home, local)}
    assert {name for name in missing if not MADE.fullmatch(name)} == set()


def is_file(name: str, page: Path) -> bool:
    """Whether a page may call a file so: from the root, or from its own folder or any one below it."""
    name = name.rstrip("/")
    return bool(MADE.fullmatch(name)) or any(ROOT.glob(name)) or any(page.parent.rglob(name.removeprefix("../")))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_in_pages(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    quoted = QUOTED.findall(FENCED.sub("", text))
    home = ".".join(page.parent.relative_to(ROOT).parts) or "sparsec"
    missing = {
        name
        for each in quoted
        for name in DOTTED.findall(f"`{each}`")
        if not FILE.fullmatch(name) and not exists(name, home, {})
    }
    shell = "\n".join(re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    words = [word for each in (*quoted, *shell.splitlines()) for word in each.partition(" #")[0].split()]
    files = {word for word in words if FILE.fullmatch(word)}
    assert {name for name in missing if not MADE.fullmatch(name)} == set()
    assert {name for name in files if not is_file(name, page)} == set()
    assert {name for name in LINKED.findall(FENCED.sub("", text)) if not (page.parent / name).exists()} == set()


def test_what_is_missing_is_found() -> None:
    home = "sparsec.runtime.kernel"
    for name in ["ir.expr.fold.walked", "runtime.draw", "KVCache.truncated", "torch.functional.nothing", "Term.x"]:
        assert not exists(name, home, {}), name
    for name in [
        "ir.expr.fold.names_in",
        "draws.DrawTables",
        "KVCache.truncate",
        "torch.func",
        "ResolvedPattern.heads",
    ]:
        assert exists(name, home, {}), name
    assert not is_file("sparsec/ir/draws.py", ROOT / "README.md")
    assert not is_file("kernel.py", ROOT / "sparsec/ir/README.md")
