"""A file and those that it imports -> one tree, in which every name says of which file it is.

The items of the first file keep their names, and so do the patterns and models of a file that it imports, or they stand
behind the import's name. Everything else gets a name that no file can write, such as `base.sparse: local`.

Invariant: what is read lies below the root, however its path is written; files, depth, text and tokens are bounded.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from sparsec.diagnostics import arguments
from sparsec.diagnostics import codes_text as codes
from sparsec.diagnostics.model import CallError, Diagnostic
from sparsec.diagnostics.source import JoinedSource, SourceFile, Span
from sparsec.syntax import tree
from sparsec.syntax.lexer import MAX_BYTES, MAX_DIAGNOSTICS, MAX_TOKENS
from sparsec.syntax.limits import definitions
from sparsec.syntax.parser import read_source, recover

MAX_FILES = 64
MAX_IMPORT_DEPTH = 16
MAX_PATH = 255

ReadImport = Callable[[str], tuple[str, bytes]]
"""A path relative to the first file's folder -> what tells its file from others, and its bytes.

Raises PermissionError for one outside the root, OSError for one that cannot be read.
"""


def from_disk(first: Path, root: Path | None = None) -> ReadImport:
    """Reads what lies below `root`, or below the folder of the file `first`; links are followed before that is asked.

    Raises CallError for a root that does not hold the first file.
    """
    folder = first.resolve().parent
    top = folder if root is None else root.resolve()
    if not folder.is_relative_to(top):
        raise CallError(f"expected a root that holds {str(first)!r}, got {str(root)!r}")

    def read(path: str) -> tuple[str, bytes]:
        try:
            target = (folder / path).resolve()
        except (RuntimeError, ValueError) as error:  # a loop of links, a NUL
            raise OSError(str(error)) from error
        if not target.is_relative_to(top):
            raise PermissionError(path)
        # Without waiting, for it may be a pipe. A link that was put at the end of the path since is refused everywhere;
        # one in the place of a folder is found out where the system tells the path of an open file, as Linux does.
        opened = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(opened, "rb") as stream:
            if not stat.S_ISREG(os.fstat(opened).st_mode):
                raise OSError("it is no plain file")
            if not _path_of(opened, target).is_relative_to(top):
                raise PermissionError(path)
            return str(target), stream.read(MAX_BYTES + 1)

    return read


def _path_of(opened: int, otherwise: Path) -> Path:
    """The path of an open file, as the system tells it."""
    try:
        return Path(f"/proc/self/fd/{opened}").readlink()
    except OSError:
        return otherwise


def from_texts(texts: Mapping[str, str]) -> ReadImport:
    """Reads the texts of `texts`, by their paths relative to the first file's folder.

    Raises CallError for what maps no paths to texts that UTF-8 can hold.
    """
    if not isinstance(texts, Mapping):
        raise CallError(f"expected imports to map paths to texts, got {type(texts).__name__}")
    known: dict[str, bytes] = {}
    for path, text in texts.items():
        name = f"imports[{arguments.instance('a path of imports', path, str)!r:.80}]"
        try:
            known[posixpath.normpath(path)] = arguments.instance(name, text, str).encode()
        except UnicodeEncodeError as error:
            got = f"{text[error.start]!r} at character {error.start}"
            raise CallError(f"expected {name} to be text that UTF-8 can hold, got {got}") from None

    def read(path: str) -> tuple[str, bytes]:
        if path not in known:
            raise FileNotFoundError(path)
        return path, known[path]

    return read


@dataclass(frozen=True, slots=True)
class Imports:
    """Where a file finds what it imports; `first`: what `read` calls the file itself."""

    read: ReadImport | None
    first: str = ""

    @staticmethod
    def of_file(path: Path, root: str | Path | None = None) -> Imports:
        """The folder of the file, or `root`. Raises CallError for a root that does not hold it."""
        return Imports(from_disk(path, None if root is None else arguments.path(root)), str(path.resolve()))


NO_IMPORTS = Imports(None)


@dataclass(slots=True, eq=False)
class _Loaded:
    """A file: its path from the first file's folder, its tree, and the file of each of its imports that has one."""

    path: str
    source: SourceFile
    file: tree.File
    imports: list[tuple[tree.ImportItem, _Loaded]] = field(default_factory=list)
    base: int = 0
    """Where its text starts in the joined one."""
    names: dict[str, str] = field(default_factory=dict)
    """Of its own items, in the joined tree."""


@dataclass(frozen=True, slots=True)
class JoinedFiles:
    """The tree of all files; every problem of their texts and imports; and where these are, in the joined text.

    `texts`: of the imported files, by their paths relative to the first file's folder.
    """

    file: tree.File
    problems: tuple[Diagnostic, ...]
    faults: tuple[int, ...]
    texts: Mapping[str, str]


def joined_files(source: SourceFile, read: ReadImport | None, first: str = "") -> JoinedFiles:
    """`source` with all that it imports. read: None for a text that has no folder; first: what `read` calls it."""
    return _Loading(read).of(source, first)


@dataclass(slots=True)
class _Loading:
    read: ReadImport | None
    known: dict[str, _Loaded] = field(default_factory=dict)
    found: list[tuple[_Loaded, Diagnostic]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    """The files whose imports are being read, the first one first."""
    seen: dict[str, str | OSError] = field(default_factory=dict)
    """What reading each path gave: what tells its file from others, or why there is none."""
    failed: set[str] = field(default_factory=set)
    """The files that have no tree, for they are no text or one file too many."""
    full: bool = False
    """Whether a limit is passed: no further file is read."""
    characters: int = 0
    """Of all texts; of what was read and gave none, the bytes."""
    tokens: int = 0
    faults: int = 0
    written: set[str] = field(default_factory=set)
    """The names of the joined tree so far."""

    def of(self, source: SourceFile, first: str) -> JoinedFiles:
        main = self._loaded(posixpath.basename(first), source)
        self.known[first] = main
        if not any(isinstance(item, tree.ImportItem) for item in main.file.items):
            problems = tuple(problem for _, problem in self.found)
            return JoinedFiles(main.file, problems, tuple(problem.span.start for problem in problems), {})
        self._imports(main, first)
        joined = self._join(main)
        if self.faults <= MAX_DIAGNOSTICS:
            return joined
        end = len(source.text)
        more = codes.more_problems(source, Span(end, end), self.faults - MAX_DIAGNOSTICS)
        return replace(joined, problems=(*joined.problems, more), faults=(*joined.faults, end))

    def _loaded(self, path: str, source: SourceFile) -> _Loaded:
        file, problems = recover(source)
        loaded = _Loaded(path, source, file)
        self.found += ((loaded, problem) for problem in problems)
        self.characters += len(source.text)
        self.tokens += file.tokens
        return loaded

    def _imports(self, of: _Loaded, key: str) -> None:
        self.open.append(key)
        for item in of.file.items:
            if isinstance(item, tree.ImportItem):
                target = self._target(of, item)
                if target is None:
                    continue
                if any(other is target for _, other in of.imports):
                    self._fault(of, codes.import_twice(of.source, item.span, item.path))
                    continue
                of.imports.append((item, target))
        self.open.pop()

    def _target(self, of: _Loaded, item: tree.ImportItem) -> _Loaded | None:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(of.path), item.path))
        if (problem := self._refusal(of, item)) is not None:
            self._fault(of, problem)
            return None
        data = self._read(path)
        key = self.seen.get(path)
        if isinstance(key, OSError):
            why = key.strerror or str(key) or "there is none"
            outside = isinstance(key, PermissionError)
            said = codes.import_unreadable(of.source, item.span, item.path, why)
            self._fault(of, codes.import_outside(of.source, item.span) if outside else said)
            return None
        if key is None or key in self.failed or self._too_large(of, item):
            return None
        if key in self.open:
            cycle = [self.known[each].path for each in self.open[self.open.index(key) :]]
            self._fault(of, codes.import_cycle(of.source, item.span, [*cycle, cycle[0]]))
            return None
        return self.known[key] if key in self.known else self._load(of, item, path, key, data)

    def _read(self, path: str) -> bytes:
        """The bytes at a path, none if they are known or a limit is passed."""
        assert self.read is not None, "without a folder every import is refused"
        if self.full or path in self.seen:
            return b""
        try:
            key, data = self.read(path)
        except OSError as error:
            self.seen[path] = error
            return b""
        self.seen[path] = key
        if key in self.known or key in self.failed:  # by another path: a link
            self.characters += len(data)
        return data

    def _too_large(self, of: _Loaded, item: tree.ImportItem) -> bool:
        """Whether the files have more text than the limit, which is reported once."""
        over = self.characters > MAX_BYTES or self.tokens > MAX_TOKENS
        if over and not self.full:
            self._fault(of, codes.imports_too_large(of.source, item.span, MAX_BYTES, MAX_TOKENS))
            self.full = True
        return over

    def _load(self, of: _Loaded, item: tree.ImportItem, path: str, key: str, data: bytes) -> _Loaded | None:
        """The file of these bytes, with what it imports."""
        if len(self.known) + len(self.failed) >= MAX_FILES or len(self.open) > MAX_IMPORT_DEPTH:
            self._fault(of, codes.too_many_imports(of.source, item.span, MAX_FILES, MAX_IMPORT_DEPTH))
            self.failed.add(key)
            self.full = True
            return None
        shown = posixpath.join(posixpath.dirname(self.known[self.open[0]].source.name), path)
        source, problems = read_source(posixpath.normpath(shown), data)
        if source is None:
            self.found += ((of, problem) for problem in problems)
            self.failed.add(key)
            self.characters += len(data)
            self.full = self.full or self.characters > MAX_BYTES
            return None
        loaded = self._loaded(path, source)
        self.known[key] = loaded
        if self._too_large(of, item):
            return None
        self._imports(loaded, key)
        return loaded

    def _refusal(self, of: _Loaded, item: tree.ImportItem) -> Diagnostic | None:
        """What is wrong with an import before any file is looked at."""
        if self.read is None:
            return codes.import_without_folder(of.source, item.span)
        if item.path.startswith("/") or "\\" in item.path or not item.path.isprintable():
            return codes.import_outside(of.source, item.span)
        if not item.path.endswith(".sparse") or len(item.path) > MAX_PATH:
            return codes.import_of_no_sparse(of.source, item.span, MAX_PATH)
        return None

    def _fault(self, of: _Loaded, problem: Diagnostic) -> None:
        """Keeps the first MAX_DIAGNOSTICS; with more of them, no further file is read."""
        self.faults += 1
        if self.faults <= MAX_DIAGNOSTICS:
            self.found.append((of, problem))
        else:
            self.full = True

    def _join(self, main: _Loaded) -> JoinedFiles:
        files = list(dict.fromkeys(self.known.values()))
        for before, after in pairwise(files):
            after.base = before.base + len(before.source.text) + 1
        for loaded in files:
            self._name(loaded, main)
        items: list[tree.Item] = [_moved(item, main.base, {}) for item in main.file.items]
        for loaded in files:
            environment = dict(loaded.names) | self._visible(loaded)
            if loaded is not main:
                items += (
                    _renamed(item, loaded, environment)
                    for item in loaded.file.items
                    if not isinstance(item, tree.ImportItem)
                )
        source = JoinedSource(
            main.source.name,
            "\n".join(loaded.source.text for loaded in files),
            tuple((loaded.base, loaded.source) for loaded in files),
        )
        faults = tuple(of.base + problem.span.start for of, problem in self.found)
        texts = {loaded.path: loaded.source.text for loaded in files if loaded is not main}
        file = tree.File(source, tuple(items), main.file.comments)
        return JoinedFiles(file, tuple(problem for _, problem in self.found), faults, texts)

    def _name(self, loaded: _Loaded, main: _Loaded) -> None:
        """Settles the names of a file's items in the joined tree."""
        direct = next((item for item, target in main.imports if target is loaded), None)
        for item in loaded.file.items:
            if isinstance(item, tree.ImportItem):
                continue
            name = item.defined.text
            brought = direct is not None and not isinstance(item, tree.ParamItem)
            shown = name if direct is None or direct.alias is None else f"{direct.alias.text}.{name}"
            free = loaded is main or (brought and shown not in self.written)
            loaded.names[name] = shown if free else f"{loaded.path}: {name}"
            self.written.add(loaded.names[name])

    def _visible(self, loaded: _Loaded) -> dict[str, str]:
        """The names that imports bring into a file, with those of their items; reports names that are taken."""
        taken = {item.defined.text: item.defined.span for item in loaded.file.items if item.defined is not None}
        found: dict[str, str] = {}
        for item, target in loaded.imports:
            for each in target.file.items:
                if isinstance(each, tree.ImportItem | tree.ParamItem):
                    continue
                name = each.name.text
                written = name if item.alias is None else f"{item.alias.text}.{name}"
                if written in taken and self.faults >= MAX_DIAGNOSTICS:
                    self.faults += 1
                    continue
                if written in taken:
                    line = loaded.source.line_of(taken[written].start)
                    self._fault(loaded, codes.imported_name_taken(loaded.source, item.span, written, line))
                    continue
                taken[written] = item.span
                found[written] = target.names[name]
        return found


def _renamed(item: tree.Item, loaded: _Loaded, environment: Mapping[str, str]) -> tree.Item:
    """An item of an imported file, as it stands in the joined tree."""

    def names(own: Iterable[tree.Name]) -> dict[str, str]:
        """The environment where these hide its names."""
        hidden = {name.text for name in own}
        return {written: name for written, name in environment.items() if written not in hidden}

    moved: Any = _moved(item, loaded.base, names(definitions(item)))
    if isinstance(item, tree.PatternItem | tree.ModelItem):
        before = [parameter.name for parameter in item.parameters]  # a default sees those above it alone
        moved = replace(
            moved,
            parameters=tuple(
                _moved(parameter, loaded.base, names(before[:n])) for n, parameter in enumerate(item.parameters)
            ),
        )
    name = loaded.names[item.defined.text] if item.defined is not None else ""
    if isinstance(moved, tree.ParamItem):
        return replace(moved, parameter=replace(moved.parameter, name=replace(moved.parameter.name, text=name)))
    renamed: tree.Item = replace(moved, name=replace(moved.name, text=name))
    return renamed


def _moved(node: Any, base: int, names: Mapping[str, str]) -> Any:
    """A part of a tree, its spans `base` characters further on, and what it names by the names of `names`."""
    match node:
        case Span(start, stop):
            return Span(start + base, stop + base)
        case tuple():
            return tuple(_moved(part, base, names) for part in node)
        case tree.Name(text, span):
            return tree.Name(names.get(text, text), _moved(span, base, names))
        case tree.InputStatement(name, kind, span):
            word, here = (kind.callee, kind) if isinstance(kind, tree.Call) else (kind, kind)
            moved = _moved(here, base, names)
            plain = _moved(word, base, {})
            moved = replace(moved, callee=plain) if isinstance(kind, tree.Call) else plain
            return tree.InputStatement(_moved(name, base, {}), moved, _moved(span, base, names))
    if not is_dataclass(node) or isinstance(node, type):
        return node
    defined = isinstance(node, tree.Parameter | tree.Argument | tree.LetStatement)
    return replace(
        node,
        **{
            part.name: _moved(getattr(node, part.name), base, {} if defined and part.name == "name" else names)
            for part in fields(node)
        },
    )
