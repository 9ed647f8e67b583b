"""`--inputs`: words that stand for a call's tensors -> the tensors of each input of a pattern.

Invariant: what cannot be read, or is no content, ends in one sentence; a file is read as data and runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sparsec.diagnostics.model import CallError
from sparsec.sema.inputs import settled
from sparsec.sema.model import ResolvedPattern

if TYPE_CHECKING:
    from torch import device

    from sparsec.reference.parts import InputTensors
    from sparsec.sema.shapes import Sizes
    from sparsec.testing.contents import Contents

SEED_LIMIT = 2**63 - 1
_FORMS = "random:density=0.05,seed=0, random:count=512, NAME=random:..., NAME=FILE.pt, NAME=FILE.npy or FILE.pt"
_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class RandomSource:
    """The fields of `Contents` that are given."""

    fields: tuple[tuple[str, float | int], ...] = ()

    def contents(self) -> Contents:
        from sparsec.testing.contents import Contents

        return Contents(**dict(self.fields))  # type: ignore[arg-type]  # each number was read as its field's type


@dataclass(frozen=True, slots=True)
class InputSources:
    """Where the tensors come from: by the input's name, else of `whole`, a file of all or random contents."""

    whole: RandomSource | Path = RandomSource()
    named: tuple[tuple[str, RandomSource | Path], ...] = ()
    texts: tuple[str, ...] = ()
    """As the command line has them."""

    @property
    def given(self) -> bool:
        return bool(self.texts)

    def described(self, pattern: ResolvedPattern) -> str:
        """In words, for a pattern with inputs."""
        named = dict(self.named)
        parts = [] if all(decl.name in named for decl in pattern.inputs) else [_words(self.whole)]
        return "inputs " + ", ".join([*parts, *(f"{name}={_words(source)}" for name, source in self.named)])

    def check(self, pattern: ResolvedPattern) -> None:
        """Raises CallError for names that the pattern lacks, and for any where it has none."""
        known = [decl.name for decl in pattern.inputs]
        if self.given and not known:
            raise CallError("expected no --inputs, since the pattern declares no input, got some")
        for name, _ in self.named:
            if name not in known:
                raise CallError(f"expected --inputs of the names {', '.join(known)}, got {name!r:.80}")

    def of_kinds(self, patterns: Sequence[ResolvedPattern]) -> tuple[InputSources, ...]:
        """What each of a model's patterns takes of them. Raises CallError for names that none has."""
        known = dict.fromkeys(decl.name for pattern in patterns for decl in pattern.inputs)
        if self.given and not known:
            raise CallError("expected no --inputs, since no layer's pattern declares an input, got some")
        for name, _ in self.named:
            if name not in known:
                raise CallError(f"expected --inputs of the names {', '.join(known)}, got {name!r:.80}")
        return tuple(self._of_kind([decl.name for decl in pattern.inputs]) for pattern in patterns)

    def _of_kind(self, names: Sequence[str]) -> InputSources:
        if not names:
            return InputSources()
        return replace(self, named=tuple((name, source) for name, source in self.named if name in names))

    def contents(self, pattern: ResolvedPattern) -> dict[str, Contents]:
        """RandomSource contents by input. Raises CallError where a file is given."""
        self.check(pattern)
        named, found = dict(self.named), {}
        for decl in pattern.inputs:
            source = named.get(decl.name, self.whole)
            if isinstance(source, Path):
                raise CallError(f"expected random contents, since lengths are drawn, got the file {source}")
            found[decl.name] = source.contents()
        return found

    def tensors(self, pattern: ResolvedPattern, sizes: Sizes, where: device | str) -> dict[str, InputTensors]:
        """Of a call of those sizes, checked. Raises CallError."""
        from sparsec.bench.files import check_given, loaded, moved

        self.check(pattern)
        if not pattern.inputs:
            return {}
        named, found = dict(self.named), {}
        declared = settled(pattern.inputs, pattern.block)
        whole = _of_names(self.whole) if isinstance(self.whole, Path) else {}
        ahead = _looks_ahead(pattern)
        for decl in declared:
            source = named.get(decl.name, self.whole)
            if isinstance(source, RandomSource):
                found[decl.name] = source.contents().drawn(decl, sizes, pattern.block, where, ahead=ahead)
            elif decl.name in named:
                found[decl.name] = moved(loaded(source), source, where)
            elif decl.name in whole:
                found[decl.name] = moved(whole.pop(decl.name), source, where)
        found |= {
            name: moved(value, Path(str(self.whole)), where) for name, value in whole.items() if name not in named
        }
        check_given(pattern, found, sizes, where)
        return found


def inputs_option(command: _Command) -> _Command:
    """--inputs."""
    return click.option(
        "--inputs",
        "sources",
        multiple=True,
        metavar="CONTENTS",
        callback=lambda _, __, texts: read_sources(texts),
        help=f"What the pattern's inputs hold: {_FORMS}; may be repeated. Of a file of all: torch.save of a dict by "
        "name. If left out, random:density=0.05,seed=0.",
    )(command)


def read_sources(texts: tuple[str, ...]) -> InputSources:
    """Raises click.BadParameter for anything that is no content."""
    whole: RandomSource | Path | None = None
    named: dict[str, RandomSource | Path] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        is_random = text == "random" or text.startswith("random:")
        if is_random or not equals:
            if whole is not None:
                raise click.BadParameter(f"expected contents of all inputs once, got {text!r:.80} too")
            whole = _source(text, (".pt",))
        elif not name.isidentifier() or not rest:
            raise click.BadParameter(f"expected {_FORMS}; got {text!r:.80}")
        elif name in named:
            raise click.BadParameter(f"expected each name once, got {name!r:.80} twice")
        else:
            named[name] = _source(rest, (".pt", ".npy"))
    return InputSources(RandomSource() if whole is None else whole, tuple(named.items()), texts)


def _source(text: str, endings: tuple[str, ...]) -> RandomSource | Path:
    if text == "random" or text.startswith("random:"):
        return _random(text)
    path = Path(text)
    if path.suffix not in endings:
        raise click.BadParameter(f"expected {_FORMS}; got {text!r:.80}")
    if not path.is_file():
        raise click.BadParameter(f"expected a file that is there, got {text!r:.80}")
    return path


def _random(text: str) -> RandomSource:
    found: dict[str, float | int] = {}
    for setting in filter(None, text.removeprefix("random").removeprefix(":").split(",")):
        name, _, number = setting.partition("=")
        try:
            value: float | int = float(number) if name == "density" else int(number)
            limits = {"density": 1.0, "count": 2**31 - 1, "seed": SEED_LIMIT}
            if name in found or not 0 <= value <= limits[name]:
                raise ValueError
        except (ValueError, KeyError):
            raise click.BadParameter(
                "expected random: with a density from 0 to 1, or a count of at least 0, and a seed, as in "
                f"random:density=0.05,seed=1; got {text!r:.80}"
            ) from None
        found[name] = value
    if {"density", "count"} <= set(found):
        raise click.BadParameter(f"expected a density or a count, got both in {text!r:.80}")
    return RandomSource(tuple(found.items()))


def _words(source: RandomSource | Path) -> str:
    return str(source.contents()) if isinstance(source, RandomSource) else click.format_filename(source)


def _looks_ahead(pattern: ResolvedPattern) -> bool:
    from sparsec.analysis.coverage import pattern_coverage
    from sparsec.pipeline import Lowered

    return not all(head.causal for head in pattern_coverage(Lowered(pattern), 1024))


def _of_names(path: Path) -> dict[str, object]:
    from sparsec.bench.files import loaded

    value = loaded(path)
    if not isinstance(value, Mapping):
        raise CallError(f"expected {path} to hold a dict of tensors by the inputs' names, got {type(value).__name__}")
    return {str(name): each for name, each in value.items()}
