"""A text as an editor has it: its names, its tree, what could be checked of it, and its problems, each made once.

Invariant: nothing here raises for any text; what a broken text lacks is None or empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from sparsec.diagnostics.model import Diagnostic
from sparsec.diagnostics.source import SourceFile, Span
from sparsec.editor.names import Names, Occurrence, Use, names_of
from sparsec.pictures.methods import DEFAULT_HEADS
from sparsec.pictures.notebook import SEQ_LEN
from sparsec.program import check
from sparsec.sema.checked import CheckedFile
from sparsec.sema.checks.file import check_structure
from sparsec.syntax.imports import NO_IMPORTS, Imports, JoinedFiles, joined_files
from sparsec.syntax.parser import recover
from sparsec.syntax.tree import File, ImportItem, Item


@dataclass(frozen=True, slots=True)
class Settings:
    """What pictures and values are for where a file leaves it open: head counts, and the length of a sequence."""

    heads: int = DEFAULT_HEADS
    kv_heads: int | None = None
    seq_len: int = SEQ_LEN


class Document:
    """A named text, and where it finds what it imports. `name` stands in diagnostics alone."""

    def __init__(self, name: str, text: str, imports: Imports = NO_IMPORTS) -> None:
        self.source, self.imports = SourceFile(name, text), imports

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
        """What could be read of the text, without what it imports."""
        return self._recovered[0]

    @property
    def well_formed(self) -> bool:
        """Whether the whole text could be read."""
        return not self._recovered[1]

    @cached_property
    def checked(self) -> CheckedFile:
        """What could be checked of it, after what it imports: in the items with an error, Nodes of the type UNKNOWN."""
        return check_structure(self._joined.file, [])

    @cached_property
    def _joined(self) -> JoinedFiles:
        return joined_files(self.source, self.imports.read, self.imports.first)

    @property
    def has_imports(self) -> bool:
        """Whether it asks for another file."""
        return any(isinstance(item, ImportItem) for item in self.tree.items)

    @property
    def imported_texts(self) -> Mapping[str, str]:
        """The texts that it imports, by their paths from its folder."""
        return self._joined.texts

    def imported(self, occurrence: Occurrence) -> tuple[SourceFile, Span] | None:
        """The file that defines what an import brings under a name of this text, and where it does; None for a name
        that no import brings."""
        if occurrence.symbol is not None or occurrence.use is not Use.REFERENCE:
            return None
        joined = self._joined.file
        for item in joined.items:
            if item.defined is not None and item.defined.text == occurrence.name:
                part, span = joined.source.of_part(item.defined.span)
                return (part, span) if part.name != self.source.name else None
        return None

    @cached_property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Every problem, as `sparsec check` finds them; one of a file that it imports stands at the first import."""
        imported = next((item for item in self.tree.items if isinstance(item, ImportItem)), None)
        return tuple(
            problem if imported is None or problem.source.name == self.source.name else self._told(problem, imported)
            for problem in check(self.source, self.imports)[1]
        )

    def _told(self, problem: Diagnostic, imported: ImportItem) -> Diagnostic:
        line = problem.source.line_of(problem.span.start)
        said = f"{problem.source.name}, line {line}: {problem.message}"
        return replace(problem, source=self.source, span=imported.span, message=said, hint=None, notes=())

    def item(self, name: str) -> Item | None:
        """The first item of that name."""
        items = (item for item in self.tree.items if not isinstance(item, ImportItem))
        return next((item for item in items if item.defined.text == name), None)
