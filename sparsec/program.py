"""The public view of a `.sparse` file: a Program of Patterns and Models.

Invariant: a Program exists only for a file without errors; what remains to fail is a call with a wrong argument
(CallError), or a value that only a parameter or a head count makes wrong (DiagnosticError).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparsec import sema
from sparsec.checking import LoweredPatterns, check_files, has_error, refusal_of
from sparsec.checking import check as check
from sparsec.diagnostics import arguments
from sparsec.diagnostics import codes_meaning as codes
from sparsec.diagnostics.model import CallError, Diagnostic, DiagnosticError
from sparsec.diagnostics.source import SourceFile, Span
from sparsec.ir.bands.normalise import TooManyBands
from sparsec.pictures import methods
from sparsec.pipeline import Lowered
from sparsec.plan.build import TooManyClasses
from sparsec.plan.kv.cached import NoCache
from sparsec.plan.kv.layout import CacheLayout
from sparsec.sema.arguments import Given
from sparsec.sema.arms import alike
from sparsec.sema.model import Documents, ResolvedPattern
from sparsec.sema.printer import head_ranges
from sparsec.sema.resolution.values import Value
from sparsec.syntax import parser
from sparsec.syntax.imports import NO_IMPORTS, Imports, from_texts, joined_files

if TYPE_CHECKING:
    import torch

    from sparsec.reference.inputs import InputValue


def load(path: str | Path, *, root: str | Path | None = None) -> Program:
    """The program in the file at `path`, with what it imports, from files in its folder or below `root`.

    Raises DiagnosticError if it has errors, OSError if it cannot be read, CallError for a root that does not hold it.
    """
    file = arguments.path(path)
    source, problems = parser.read_file(file, str(file))
    if source is None:
        raise DiagnosticError(problems)
    return read_program(source, Imports.of_file(file, root))


def parse(text: str, filename: str = "<string>", *, imports: Mapping[str, str] | None = None) -> Program:
    """The program in `text`; diagnostics call it `filename`. Raises DiagnosticError if it has errors.

    imports: the texts that it may import, by their paths; no file is read.
    """
    source = SourceFile(filename, arguments.instance("text", text, str))
    return read_program(source, NO_IMPORTS if imports is None else Imports(from_texts(imports)))


class NoNameError(CallError):
    """A pattern or a model was asked for without a name, of a file that has several."""


def read_program(source: SourceFile, imports: Imports) -> Program:
    """The program of a text that was read. Raises DiagnosticError if it has errors."""
    lowered: LoweredPatterns = {}
    files = joined_files(source, imports.read, imports.first)
    checked, diagnostics = check_files(files, source, lowered)
    if checked is None or has_error(diagnostics):
        raise DiagnosticError(diagnostics)
    return Program(checked, diagnostics, lowered, files.texts)


class Program:
    """A checked file. `patterns` and `models` are their names in file order, then those that imports bring;
    `diagnostics` are the file's warnings, `imports` the texts of what it imports, as `parse` takes them."""

    def __init__(
        self,
        checked: sema.CheckedFile,
        diagnostics: tuple[Diagnostic, ...],
        lowered: Mapping[sema.Binding, Lowered],
        imports: Mapping[str, str],
    ) -> None:
        self._checked, self._lowered = checked, lowered
        self.imports = imports
        self.patterns = checked.pattern_names
        self.models = checked.model_names
        self.diagnostics = diagnostics

    @property
    def source(self) -> SourceFile:
        """The text that this program was read from, without what it imports."""
        return self._checked.source.of_part(Span(0, 0))[0]

    def pattern(self, name: str | None = None, /, **params: Given) -> Pattern:
        """The pattern called `name`, which may be left out if the file has one.

        `params` replace defaults, of the pattern's parameters and then of the file's; each has the type of the default,
        and a string is read as the language writes it: `every="8b"`. Raises CallError for a wrong name or type.
        """
        picked = _pick("pattern", name, self.patterns, self._own(self._checked.patterns), self.models)
        binding = sema.bind(self._checked, picked, params)
        return Pattern(self._checked, binding, self._lowered.get(binding), origin=Naming(self, picked, params))

    def model(self, name: str | None = None, /, *, layers: int | None = None, **params: Given) -> Model:
        """The model called `name`, which may be left out if the file has one; `params` as for `pattern`.

        layers: how many, where the file does not say it; a number that it does say must agree. Raises CallError.
        """
        picked = _pick("model", name, self.models, self._own(self._checked.models), self.patterns)
        count = None if layers is None else arguments.integer("layers", layers)
        bindings = sema.layers(self._checked, picked, params, count)
        return Model(self._checked, picked, bindings, self._lowered, Naming(self, picked, params))

    def _own(self, items: Mapping[str, sema.CheckedPattern] | Mapping[str, sema.CheckedModel]) -> tuple[str, ...]:
        """The names of those that no import brings."""
        return tuple(name for name, item in items.items() if self._checked.own(item))

    def parameters(self, params: Mapping[str, Given] | None = None) -> dict[str, Value]:
        """The file's own parameters by name, with those among `params` in place of defaults; ranges are RangeValues.

        Raises CallError for a value of another type.
        """
        found = sema.file_values(self._checked, params or {})
        return {name: value for name, value in found.items() if " " not in name}

    _repr_html_ = methods.html_of_program

    def __repr__(self) -> str:
        return f"Program({self.source.name!r}, patterns={self.patterns}, models={self.models})"


@dataclass(frozen=True, slots=True)
class Naming:
    """What names a pattern or a model: a program, a name in it (None: its only one), and values of parameters."""

    program: Program
    name: str | None
    params: Mapping[str, Given]


class Pattern:
    """A pattern with its parameters bound.

    `heads` and `kv_heads` are what the file gives, None where the caller has to; `block` is the block size in tokens.
    `origin`: what names it, None for a layer of a model and for a pattern made of another one.
    """

    def __init__(
        self,
        checked: sema.CheckedFile,
        binding: sema.Binding,
        lowered: Lowered | None,
        marked: str | None = None,
        *,
        packed: bool = False,
        origin: Naming | None = None,
    ) -> None:
        self._checked = checked
        self._binding = binding
        self._marked, self._packed = marked, packed
        self.origin = origin
        self._resolved: dict[tuple[int | None, int | None], sema.Resolved] = {}
        self._lowered = {} if lowered is None else {(lowered.pattern.heads, lowered.pattern.kv_heads): lowered}
        self.name = binding.pattern
        self.heads, self.kv_heads, self.block = sema.declared_counts(checked, binding)

    @property
    def source(self) -> SourceFile:
        """The text that this pattern was read from."""
        return self._checked.source.of_part(self._checked.patterns[self.name].span)[0]

    def resolve(self, heads: int | None = None, kv_heads: int | None = None) -> ResolvedPattern:
        """One term for each query head.

        Counts that the file gives may be left out, and must agree if they are not; without any `kv_heads` there is one
        KV head for each query head. Raises CallError for the counts, DiagnosticError for values that they make wrong.
        """
        return self._resolve(heads, kv_heads).heads

    @property
    def alike(self) -> ResolvedPattern | None:
        """The pattern with the head counts of its file, or for one head where it is the same for every head.

        None where counts that the caller gives matter. A score that depends on the head does not count.
        """
        if self._marked is not None or self._packed:
            return None
        return sema.settled_heads(self._checked, self._binding)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs that a call gives, in the order of the file."""
        declared = tuple(each.name for each in self._checked.patterns[self.name].inputs)
        return declared if self._marked is None else (*declared, self._marked)

    def among(self, name: str) -> Pattern:
        """This pattern within the keys that a new input `name`, of kind tokens, marks. Raises CallError."""
        if name in self.inputs or self._marked is not None or self._packed:
            raise CallError(
                f"expected a pattern as its file has it, and a new name, got inputs {self.inputs}, {name!r}"
            )
        return Pattern(self._checked, self._binding, None, name)

    def in_documents(self) -> Pattern:
        """This pattern in packed documents, each of which counts from its own start, as with `documents restart`."""
        return Pattern(self._checked, self._binding, None, self._marked, packed=True)

    def lowered(self, heads: int | None = None, kv_heads: int | None = None) -> Lowered:
        """The resolved pattern on its way down, one for equal counts; raises as `resolve` does."""
        found = self.resolve(heads, kv_heads)
        return self._lowered.setdefault((found.heads, found.kv_heads), Lowered(found))

    def warnings(self, heads: int | None = None, kv_heads: int | None = None) -> tuple[Diagnostic, ...]:
        """The warnings that hold for these head counts; raises as `resolve` does."""
        return self._resolve(heads, kv_heads).warnings

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """The warnings found so far: those of the counts in the file and of every call of `resolve`."""
        if self.heads is not None:
            self._resolve(None, None)
        found = (diagnostic for resolved in self._resolved.values() for diagnostic in resolved.warnings)
        return tuple(dict.fromkeys(found))

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Inside, a DiagnosticError takes the place of TooManyBands and TooManyClasses of this pattern."""
        try:
            yield
        except (TooManyBands, TooManyClasses) as error:
            raise DiagnosticError((refusal_of(self._checked, self.name, error),)) from error

    def cache_layout(self, heads: int | None = None, kv_heads: int | None = None) -> CacheLayout:
        """Which keys a KV cache of this pattern keeps, and where.

        Raises as `resolve` does, and DiagnosticError for a pattern that no cache serves: one that is not causal, or
        that packs documents.
        """
        try:
            with self.refusals():
                return self.lowered(heads, kv_heads).layout
        except NoCache as error:
            span, hint = self._checked.patterns[self.name].span, None
            if self.resolve(heads, kv_heads).documents is not Documents.NONE:
                hint = "give each document a cache of its own, with the pattern without `documents`"
            problem = codes.NO_CACHE.at(self.source, span, hint=hint, name=self.name, why=str(error))
            raise DiagnosticError((problem,)) from error

    def cache_warnings(self, heads: int | None = None, kv_heads: int | None = None) -> tuple[Diagnostic, ...]:
        """A warning for each term that makes a cache grow for want of a closed form; raises as `cache_layout` does."""
        span = self._checked.patterns[self.name].span
        return tuple(
            codes.CACHE_GROWS.at(self.source, span, name=self.name, term=growth.origin, why=growth.reason)
            for growth in self.cache_layout(heads, kv_heads).growth
        )

    def mask(
        self,
        n_q: int,
        n_k: int,
        heads: int | None = None,
        kv_heads: int | None = None,
        *,
        inputs: Mapping[str, InputValue] | None = None,
    ) -> torch.Tensor:
        """The reference meaning: bool [heads, n_q, n_k] on the CPU, true where query n_k - n_q + i may attend to key j.

        `inputs`: the tensors of the inputs that the pattern declares, as a call takes them; the mask is then [batch,
        heads, n_q, n_k], batch being 1 or that of the inputs. Raises CallError for wrong counts or inputs, `documents`,
        or more than 2^28 pairs a head.
        """
        from sparsec.reference import mask

        n_q, n_k = arguments.integer("n_q", n_q, 0), arguments.integer("n_k", n_k, 0)
        return mask(self.resolve(heads, kv_heads), n_q, n_k, inputs=inputs)

    show, svg, show_cache, _repr_html_ = (
        methods.show_pattern,
        methods.pattern_svg,
        methods.show_cache,
        methods.pattern_html,
    )

    def _resolve(self, heads: int | None, kv_heads: int | None) -> sema.Resolved:
        key = (_count(heads), _count(kv_heads))
        if key not in self._resolved:
            found = sema.resolve(self._checked, self._binding, *key)
            if self._marked is not None:
                found = replace(found, heads=sema.among_marked(found.heads, self._marked))
            if self._packed:
                found = replace(found, heads=replace(found.heads, documents=Documents.RESTART))
            self._resolved[key] = found
        return self._resolved[key]

    def __repr__(self) -> str:
        return f"Pattern({self.name!r}, {dict(self._binding.values)})"


@dataclass(frozen=True, slots=True)
class LayerKind:
    """What some layers of a model, numbered from 0, attend by; `meaning` is the pattern for their head counts."""

    pattern: Pattern
    meaning: ResolvedPattern
    layers: tuple[int, ...]

    def __str__(self) -> str:
        word = "layer" if len(self.layers) == 1 else "layers"
        return f"{self.pattern.name}, {word} {head_ranges(self.layers)}"


class Model:
    """The patterns of a model, layer by layer; equal layers share one Pattern. `origin`: what names it."""

    def __init__(
        self,
        checked: sema.CheckedFile,
        name: str,
        bindings: tuple[sema.Binding, ...],
        lowered: Mapping[sema.Binding, Lowered],
        origin: Naming,
    ) -> None:
        self.name, self.origin = name, origin
        shared: dict[sema.Binding, Pattern] = {}
        for binding in bindings:
            if binding not in shared:
                shared[binding] = Pattern(checked, binding, lowered.get(binding))
        self._layers = tuple(shared[binding] for binding in bindings)

    def __len__(self) -> int:
        return len(self._layers)

    def layer(self, layer: int) -> Pattern:
        """The pattern of layer `layer`, from 0; raises CallError if there is no such layer."""
        return self._layers[arguments.integer("layer", layer, 0, len(self) - 1)]

    def kinds(self, resolve: Callable[[Pattern], ResolvedPattern] = Pattern.resolve) -> tuple[LayerKind, ...]:
        """The kinds of layers, in the order of their first ones; layers are of one kind if their patterns have one name
        and one meaning. `resolve`: gives a pattern's meaning, once for each; raises what that raises."""
        meanings = {pattern: resolve(pattern) for pattern in dict.fromkeys(self._layers)}
        patterns = {(pattern.name, meaning): pattern for pattern, meaning in reversed(meanings.items())}
        found = alike((pattern.name, meanings[pattern]) for pattern in self._layers)
        return tuple(LayerKind(patterns[key], key[1], layers) for key, layers in found.items())

    show, _repr_html_ = methods.show_model, methods.model_html

    def __repr__(self) -> str:
        return f"Model({self.name!r}, {len(self)} layers)"


def _count(given: int | None) -> int | None:
    """As an int of Python, where it is one of any type; `sema.resolve` refuses the rest."""
    return arguments.as_python(given)  # type: ignore[return-value]


def _pick(what: str, name: str | None, names: tuple[str, ...], own: tuple[str, ...], others: tuple[str, ...]) -> str:
    """`others`: names of the other kind, a model's where a pattern is asked for."""
    other = "model" if what == "pattern" else "pattern"
    elsewhere = (
        f"; Program.{other}(...) gives the {other}{'s' * (len(others) > 1)} {', '.join(others)}" if others else ""
    )
    if not names:
        raise CallError(f"expected a file with a {what}, got one without{elsewhere}")
    shown = ", ".join(names)
    if name is None:
        if len(own or names) != 1:
            raise NoNameError(f"expected the name of a {what}, one of: {shown}; got no name{elsewhere}")
        return (own or names)[0]
    if name not in names:
        raise CallError(f"expected the name of a {what}, one of: {shown}; got {name!r}{elsewhere}")
    return name
