"""A text as an editor has it: its names, its tree, what could be checked of it, and its problems, each made once.

Invariant: nothing here raises for any text; what a broken text lacks is None or empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sparsec.diagnostics.model import Diagnostic
from sparsec.diagnostics.source import SourceFile
from sparsec.editor.names import Names, names_of
from sparsec.program import check
from sparsec.sema.checked import CheckedFile
from sparsec.sema.checks.file import check_structure, item_name
from sparsec.syntax.parser import recover
from sparsec.syntax.tree import File, Item


@dataclass(frozen=True, slots=True)
class Settings:
    """What pictures and values are for where a file leaves it open: head counts, and the length of a sequence."""

    heads: int = 8
    kv_heads: int | None = None
    seq_len: int = 8192


class Document:
    """A named text. `name` stands in diagnostics alone."""

    def __init__(self, name: str, text: str) -> None:
        self.source = SourceFile(name, text)

    @property
    def text(self) -> str:
        return self.source.text

    @cached_property
    def names(self) -> Names:
        """Every name of the text."""
        return names_of(self.source)

    @cached_property
    def _recovered(self) -> tuple[File, tuple[Diagnostic, ...]]:
        return recover(self.source)

    @property
    def tree(self) -> File:
        """What could be read of the text."""
        return self._recovered[0]

    @property
    def well_formed(self) -> bool:
        """Whether the whole text could be read."""
        return not self._recovered[1]

    @cached_property
    def checked(self) -> CheckedFile:
        """What could be checked of it: in the items with an error, Nodes of the type UNKNOWN."""
        return check_structure(self.tree, [])

    @cached_property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Every problem, as `sparsec check` finds them."""
        return check(self.source)[1]

    def item(self, name: str) -> Item | None:
        """The first item of that name."""
        return next((item for item in self.tree.items if item_name(item).text == name), None)
