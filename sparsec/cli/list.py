"""`sparsec list`: what a file defines: patterns, models, parameters and their documentation comments."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from sparsec.cli.options import file_argument, open_program
from sparsec.diagnostics.tables import count
from sparsec.program import Program
from sparsec.syntax.parser import recover
from sparsec.syntax.printer import print_expr
from sparsec.syntax.tree import ImportItem, Item, ParamItem


@dataclass(frozen=True, slots=True)
class ListedItem:
    """An item of a file; `defaults`: of its parameters, as the file writes them. Of a pattern that is imported the name
    alone is told."""

    kind: str
    name: str
    defaults: dict[str, str]
    doc: str
    heads: int | None = None
    kv_heads: int | None = None
    inputs: tuple[str, ...] = ()
    imported: bool = False

    def __str__(self) -> str:
        given = ", ".join(f"{name} = {default}" for name, default in self.defaults.items())
        head = f"{self.kind} {self.name}"
        if self.kind == "param":
            head += f" = {self.defaults[self.name]}"
        elif given:
            head += f"({given})"
        says = [f"{count(self.heads, 'head')} on {count(self.kv_heads or self.heads, 'KV head')}"] if self.heads else []
        says += [f"inputs {', '.join(self.inputs)}"] if self.inputs else []
        says += ["imported"] if self.imported else []
        first = f"{head}  # {'; '.join(says)}" if says else head
        return f"{first}\n    {self.doc}" if self.doc else first


@click.command("list")
@file_argument
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def list_items(file: Path, form: str) -> None:
    """Print the patterns, models and parameters of a file, with their defaults and documentation comments.

    Example: sparsec list examples/s2.sparse
    """
    found = listed_items(open_program(file))
    if form == "json":
        click.echo(json.dumps([asdict(item) for item in found], indent=2))
    else:
        click.echo("\n".join(map(str, found)))


def listed_items(program: Program) -> tuple[ListedItem, ...]:
    """The items of the file in order, then what it imports."""
    tree, _ = recover(program.source)
    own = tuple(_listed(program, item) for item in tree.items if not isinstance(item, ImportItem))
    names = {item.name for item in own}
    patterns = (ListedItem("pattern", name, {}, "", imported=True) for name in program.patterns if name not in names)
    models = (ListedItem("model", name, {}, "", imported=True) for name in program.models if name not in names)
    return (*own, *patterns, *models)


def _listed(program: Program, item: Item) -> ListedItem:
    assert not isinstance(item, ImportItem), "defines nothing"
    doc = " ".join(item.doc)
    if isinstance(item, ParamItem):
        return ListedItem("param", item.defined.text, {item.defined.text: print_expr(item.parameter.default)}, doc)
    name = item.name.text
    defaults = {parameter.name.text: print_expr(parameter.default) for parameter in item.parameters}
    if name not in program.patterns:
        return ListedItem("model", name, defaults, doc)
    pattern = program.pattern(name)
    return ListedItem("pattern", name, defaults, doc, pattern.heads, pattern.kv_heads, pattern.inputs)
