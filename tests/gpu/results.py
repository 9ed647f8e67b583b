"""Rows of one step -> a JSON file that is whole at any moment, so that a step which is cut off has lost nothing.

Invariant: the file on disk is always the JSON of the rows so far, and a reader never sees a part of it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Results:
    """`head`: what the file says beside its rows. Nothing but plain data; what is no JSON is written as its text."""

    def __init__(self, path: Path, head: dict[str, Any] | None = None) -> None:
        self.path, self.data = path, {**(head or {}), "rows": []}
        self._write()

    def add(self, row: dict[str, Any]) -> None:
        self.data["rows"].append(row)
        self._write()

    def say(self, **more: Any) -> None:
        """Adds to the head."""
        self.data |= more
        self._write()

    def _write(self) -> None:
        write(self.path, self.data)


def write(path: Path, data: Any) -> None:
    """`data` as JSON under a temporary name, which then becomes `path`."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(json.dumps(data, indent=1, default=str) + "\n", encoding="utf-8")
    new.replace(path)


def read(path: Path) -> dict[str, Any] | None:
    """None for a file that is not there, or holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
