"""A file whose names, types and structure are settled; what `check` makes and `instantiate` evaluates.

Invariant: every Node in a CheckedFile that came with no error diagnostic is free of `error` Nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsec.diagnostics.source import SourceFile, Span
from sparsec.sema.checks.scope import Parameter
from sparsec.sema.model import Documents, InputKind, InputUnit
from sparsec.sema.node import Node


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """`where C attend E` (or `use P`); the condition is None in `otherwise` and a bare arm; `head` spans the lead."""

    condition: Node | None
    body: Node
    head: Span


@dataclass(frozen=True, slots=True, eq=False)
class CheckedInput:
    """A declared run-time input; `span` is that of its name.

    `tile`: the two lengths of `blocks(m, n)`. It is `inherited` if a pattern that is named declares it.
    """

    name: str
    kind: InputKind
    unit: InputUnit
    span: Span
    tile: tuple[Node, Node] | None = None
    inherited: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class CheckedPattern:
    """A pattern. `statements` maps the keyword of each statement given once to its span.
    `modifiers` maps the keyword of each modifier of the score, in their order, to what stands behind it.

    `inputs` are its own and those of the patterns it names; `references` are the Nodes that name other patterns.
    """

    name: str
    span: Span
    parameters: tuple[Parameter, ...]
    statements: Mapping[str, Span]
    heads: Node | None
    kv_heads: Node | None
    block: Node | None
    documents: Documents
    inputs: tuple[CheckedInput, ...]
    lets: tuple[Node, ...]
    arms: tuple[Arm, ...]
    scale: Node | None
    modifiers: Mapping[str, Node | None]
    references: tuple[Node, ...]


@dataclass(frozen=True, slots=True, eq=False)
class CheckedModel:
    """A model; the body of each arm is a `pattern` Node."""

    name: str
    span: Span
    parameters: tuple[Parameter, ...]
    layers: Node | None
    lets: tuple[Node, ...]
    arms: tuple[Arm, ...]


@dataclass(frozen=True, slots=True, eq=False)
class CheckedFile:
    """A checked file. Every mapping is in the order of the file, `parameters` in an order of evaluation."""

    source: SourceFile
    parameters: Mapping[str, Parameter]
    patterns: Mapping[str, CheckedPattern]
    models: Mapping[str, CheckedModel]

    @property
    def pattern_names(self) -> tuple[str, ...]:
        """Those that can be written, the file's own first and then those that imports bring."""
        return tuple(name for name in self.patterns if " " not in name)

    @property
    def model_names(self) -> tuple[str, ...]:
        """Likewise."""
        return tuple(name for name in self.models if " " not in name)

    def own(self, item: CheckedPattern | CheckedModel) -> bool:
        """Whether the file itself has the item, and no import."""
        return self.source.of_part(item.span)[0] is self.source.of_part(Span(0, 0))[0]
