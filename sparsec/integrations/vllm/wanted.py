"""What vLLM was started with -> the pattern that is asked for, and from it a pattern for each layer.

Invariant: of the places that may name a pattern the first that does is read, and the others are not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sparsec.diagnostics.arguments import instance
from sparsec.diagnostics.model import CallError
from sparsec.integrations.choice import patterns_of
from sparsec.program import Naming, Pattern, load, parse

KEY = "sparsec"
"""In vLLM's additional_config, and in a model's config."""
VARIABLE = "SPARSEC_VLLM"
"""The environment variable: a path, or a path and a name, as in `longgen.sparse#longgen`."""
_FIELDS = ("text", "path", "name", "params", "filename", "replace_window", "rollback", "imports")
_SUFFIX = ".sparse"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A program's text, the name that diagnostics call it by, which of its models or patterns is meant, with which
    parameters (JSON), and the texts that it imports, by their paths."""

    text: str
    filename: str
    name: str | None = None
    params: str = "{}"
    imports: tuple[tuple[str, str], ...] = ()

    def patterns(self, layers: int) -> tuple[Pattern, ...]:
        """Of each layer; equal ones are one object. Raises CallError, DiagnosticError."""
        return _patterns(self, layers)


def wanted_by(
    additional: Any, environment: Mapping[str, str], config: Any, folder: Path | str | None = None
) -> Wanted | None:
    """None where no pattern is asked for.

    additional: vLLM's additional_config; config: the model's, of transformers; folder: where the model lies, if it
    does. A pattern is given as a path (which ends in `.sparse`; that of a model's config starts from its folder), as a
    text, or as a mapping with `path` or `text` and, if need be, `name` and `params`, as `apply` of
    `sparsec.integrations.transformers` saves it. Raises CallError for anything else
    and for no such file, DiagnosticError for a bad one.
    """
    if isinstance(additional, Mapping) and additional.get(KEY) is not None:
        return _read(additional[KEY], f"additional_config[{KEY!r}]", None)
    if environment.get(VARIABLE):
        path, _, name = environment[VARIABLE].partition("#")
        if not path.endswith(_SUFFIX):
            raise CallError(f"expected the path of a {_SUFFIX} file in {VARIABLE}, got {path!r}")
        return _read({"path": path, "name": name or None}, VARIABLE, None)
    saved = getattr(config, KEY, None)
    return None if saved is None else _read(saved, f"the model's config.{KEY}", folder)


def _read(given: Any, where: str, folder: Path | str | None) -> Wanted:
    if isinstance(given, str):
        given = {"path" if given.endswith(_SUFFIX) else "text": given}
    if not isinstance(given, Mapping) or ("path" in given) == ("text" in given):
        raise CallError(f"expected a path, a text, or a mapping with one of them in {where}, got {given!r:.80}")
    if others := [name for name in given if name not in _FIELDS]:
        raise CallError(f"expected {', '.join(_FIELDS[:4])} in {where}, got {others[0]!r}")
    params = json.dumps(instance("params", given.get("params") or {}, Mapping))  # type: ignore[type-abstract]  # none is made
    if "text" in given:
        text, filename = instance("text", given["text"], str), str(given.get("filename") or f"<{where}>")
        imports = instance("imports", given.get("imports") or {}, Mapping)  # type: ignore[type-abstract]  # none is made
        texts = tuple((str(name), instance("an import", each, str)) for name, each in imports.items())
    else:
        path = Path(folder or ".", instance("path", given["path"], str))
        try:
            (text, texts), filename = _texts(path), str(path)
        except OSError as error:
            raise CallError(f"expected a {_SUFFIX} file at the path in {where}, got {error}") from error
    return Wanted(text, filename, given.get("name"), params, texts)


@cache  # each layer of a model asks
def _texts(path: Path) -> tuple[str, tuple[tuple[str, str], ...]]:
    program = load(path)
    return program.source.text, tuple(program.imports.items())


@cache
def _patterns(wanted: Wanted, layers: int) -> tuple[Pattern, ...]:
    program = parse(wanted.text, filename=wanted.filename, imports=dict(wanted.imports))
    return tuple(patterns_of(Naming(program, wanted.name, json.loads(wanted.params)), layers))
