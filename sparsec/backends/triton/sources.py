"""The functions of templates/triton/kernels: their text, what each calls, and a module's text with those that it needs.

Invariant: a module holds each function that its text names, directly or through another, once, and no other.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache

from sparsec._resources import list_data, read_data

_FOLDER = "templates/triton/kernels"
_IMPORTS = "import triton\nimport triton.language as tl\n"
_CALLED = re.compile(r"(?<![\w.])([a-z_]\w*)\(")


@dataclass(frozen=True, slots=True)
class Function:
    """`source` with its decorators; `names`: all that it mentions."""

    name: str
    parameters: tuple[str, ...]
    source: str
    names: frozenset[str]


@cache
def functions() -> dict[str, Function]:
    """All functions by name, those of one file in its order."""
    found: dict[str, Function] = {}
    for file in list_data(_FOLDER):
        if file.endswith(".py"):
            text = read_data(file)
            for node in ast.parse(text).body:
                if isinstance(node, ast.FunctionDef):
                    assert node.name not in found, f"two kernel functions are called {node.name}"
                    found[node.name] = _function(node, text.splitlines())
    return found


def _function(node: ast.FunctionDef, lines: list[str]) -> Function:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    source = "\n".join(lines[first - 1 : node.end_lineno])
    return Function(node.name, tuple(argument.arg for argument in node.args.args), source, _names(node))


def _names(function: ast.FunctionDef) -> frozenset[str]:
    return frozenset(each.id for each in ast.walk(function) if isinstance(each, ast.Name))


def with_functions(module: str) -> str:
    """The text of a module and, behind its imports, of the functions that it calls."""
    known, wanted = functions(), set[str]()
    pending = set(_CALLED.findall(module))  # of a text that may be megabytes long, a tree would take seconds
    while pending:
        used = pending & known.keys() - wanted
        wanted |= used
        pending = {name for each in used for name in known[each].names}
    head, imports, body = module.partition(_IMPORTS)
    assert imports, "a module imports Triton"
    return head + imports + "".join(f"\n\n{known[name].source}\n" for name in known if name in wanted) + body
