"""The methods of `Pattern`, `Model` and `Program` that draw: what a caller gives, checked, and a drawing of it.

Invariant: head counts that neither the caller nor the file gives are DEFAULT_HEADS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sparsec.diagnostics.arguments import integer, optional
from sparsec.pictures.notebook import SEQ_LEN, program_html, quiet
from sparsec.pipeline import Lowered

if TYPE_CHECKING:  # what draws needs numpy, which a program does not
    from sparsec.pictures.caches import CacheDrawing
    from sparsec.pictures.drawing import Drawing
    from sparsec.pictures.layers import ModelDrawing
    from sparsec.program import Model, Pattern, Program
    from sparsec.reference.parts import InputTensors

DEFAULT_HEADS = 8
"""Query heads of a pattern that leaves them to the caller, where the caller leaves them too."""


def heads_or_default(pattern: Pattern, heads: int | None, kv_heads: int | None) -> int | None:
    """`heads`, or DEFAULT_HEADS in whole KV groups where neither the caller nor the file gives them."""
    if heads is not None or pattern.heads is not None:
        return heads
    return DEFAULT_HEADS if kv_heads is None else max(DEFAULT_HEADS // kv_heads, 1) * kv_heads


def show_pattern(
    self: Pattern,
    seq_len: int = SEQ_LEN,
    *,
    heads: int | None = None,
    kv_heads: int | None = None,
    head: int | None = None,
    queries: int | None = None,
    q_offset: int | None = None,
    rows: tuple[int, int] | None = None,
    columns: tuple[int, int] | None = None,
    cu_seqlens: Sequence[int] | None = None,
    inputs: Mapping[str, InputTensors] | None = None,
) -> Drawing:
    """A drawing of which pairs each distinct head computes among `seq_len` keys: text when printed, a page in a
    notebook; its `svg()`, `html()`, `text()` and `json()` give each form.

    `head`: the heads like that query head alone. `queries` and `q_offset`: those of a call, by default the last ones.
    `rows` and `columns`: a part of the positions, half-open. `cu_seqlens`: the bounds of packed documents. `inputs`:
    the tensors of a call; without them, inputs count as if they named every pair that they may. Head counts that nobody
    gives are DEFAULT_HEADS. Raises as `resolve` does, and CallError for what is out of range.
    """
    from sparsec.pictures.drawing import Drawing, checked_view

    lowered = _lowered(self, heads, kv_heads)
    found = lowered.pattern
    view = checked_view(found, seq_len, queries, q_offset, rows, columns, cu_seqlens)
    drawing = Drawing(self.name, lowered, view, optional("head", head, 0, found.heads - 1))
    return drawing if inputs is None else drawing.with_inputs(inputs)


def pattern_svg(self: Pattern, seq_len: int = SEQ_LEN, **how: Any) -> str:
    """The image of `show`, which takes the same arguments."""
    return show_pattern(self, seq_len, **how).svg()


def show_cache(
    self: Pattern, seq_len: int = SEQ_LEN, heads: int | None = None, kv_heads: int | None = None
) -> CacheDrawing:
    """A drawing of what the KV cache of each group keeps as a sequence grows; raises as `cache_layout` does."""
    from sparsec.pictures.caches import CacheDrawing
    from sparsec.pictures.drawing import LONGEST

    layout = self.cache_layout(heads_or_default(self, heads, kv_heads), kv_heads)
    return CacheDrawing(self.name, layout, integer("seq_len", seq_len, 1, LONGEST))


def pattern_html(self: Pattern) -> str:
    """For a notebook: the image of `show`."""
    return quiet(partial(pattern_svg, self), repr(self))


def show_model(
    self: Model, seq_len: int = SEQ_LEN, heads: int | None = None, kv_heads: int | None = None
) -> ModelDrawing:
    """A drawing with a strip for each layer: the keys that its last queries see; as `Pattern.show` otherwise."""
    from sparsec.pictures.drawing import LONGEST
    from sparsec.pictures.layers import model_drawing

    layers = [self.layer(layer) for layer in range(len(self))]
    lowered = {pattern: _lowered(pattern, heads, kv_heads) for pattern in dict.fromkeys(layers)}
    keys = integer("seq_len", seq_len, 1, LONGEST)
    return model_drawing(self.name, [(pattern.name, lowered[pattern]) for pattern in layers], keys)


def model_html(self: Model) -> str:
    """For a notebook: the strips of `show`."""
    return quiet(lambda: show_model(self).svg(), repr(self))


def html_of_program(self: Program) -> str:
    """For a notebook: the text, and the images of its first patterns."""
    return program_html(self.source.text, (partial(_svg_of, self, name) for name in self.patterns))


def _svg_of(program: Program, name: str) -> str:
    return pattern_svg(program.pattern(name))


def _lowered(pattern: Pattern, heads: int | None, kv_heads: int | None) -> Lowered:
    """What is drawn, within the limits of what a kernel is made for."""
    found = pattern.resolve(heads_or_default(pattern, heads, kv_heads), kv_heads)
    with pattern.refusals():
        return pattern.lowered(found.heads, found.kv_heads).within_limits()
