"""The grammar and the templates as text, from the wheel's `sparsec/_data` or from the checkout's top level.

Invariant: nothing outside these two folders can be named; an editable install sees the live files.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

_FOLDERS = ("grammar", "templates")


def data_path(name: str) -> Traversable:
    """The file or folder `name` (`grammar/sparse.lark`, `templates/cpu`).

    Raises ValueError for a name outside the data folders, FileNotFoundError for one that the installation lacks.
    """
    parts = PurePosixPath(name).parts
    if not parts or parts[0] not in _FOLDERS or ".." in parts:
        raise ValueError(f"{name!r} names no packaged data: it has to start with one of {', '.join(_FOLDERS)}")
    package = files("sparsec")
    checkout: Traversable = Path(__file__).resolve().parent.parent
    for root in (package / "_data", checkout):
        found = root.joinpath(*parts)
        if found.is_file() or found.is_dir():
            return found
    raise FileNotFoundError(f"the installation lacks {name}")


def read_data(name: str) -> str:
    """The text of `grammar/...` or `templates/...`."""
    return data_path(name).read_text(encoding="utf-8")


def list_data(folder: str) -> tuple[str, ...]:
    """The names of every file below `folder`, sorted: `templates/cpu/forward.cpp.j2`, ..."""
    names: list[str] = []
    for entry in data_path(folder).iterdir():
        name = f"{folder}/{entry.name}"
        names.extend(list_data(name) if entry.is_dir() else (name,))
    return tuple(sorted(names))
