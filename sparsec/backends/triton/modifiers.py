"""Score modifiers -> the calls of their functions in templates/triton/kernels/modifiers, and what a launch gives these.

A modifier `m` is a file m.py. It may define m_of_head (its number for a head), m_score (the new scores; with m_gradient
also what that needs, which is called m_kept; a key bias also gives which keys are `kept`), m_gradient (of the scores
before it), m_start (of the soft-max's rows)
and m_row_gradient (for each row of the output's gradient). A call hands on the variables that the parameters name, and
`factor`, by which the scores have yet to be multiplied. Parameters that no kernel has by itself are arguments.

Invariant: a modifier is named in `_modifier` and in its own file alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import assert_never

from sparsec.backends.triton.sources import functions
from sparsec.backends.triton.view import RowsView, ScoreView, StartView
from sparsec.plan.kernel import KernelPlan
from sparsec.plan.launch import LaunchPlan
from sparsec.sema.model import Documents
from sparsec.sema.modifiers import Alibi, KeyBias, LearnedSink, Modifier, Softcap

_KEY_BIAS = "key_bias"
BIAS_SIZES = ("bias_batch", "bias_heads", "bias_head", "bias_key", "bias_keys")
"""Of `bias`, what keys add: its strides, how many heads it has and how many keys."""
_FACTOR = "scale_log2"
"""What makes exponents of 2 of the products."""


@dataclass(frozen=True, slots=True)
class ModifierView:
    """`numbers` and `tables` (float32, one a head) are arguments that follow from the plan; others come with a call."""

    name: str
    numbers: tuple[tuple[str, float], ...] = ()
    tables: tuple[tuple[str, tuple[float, ...]], ...] = ()


def modifiers_of(plan: KernelPlan | LaunchPlan) -> tuple[ModifierView, ...]:
    """The modifiers of a plan's scores, in the order in which they apply."""
    return tuple(_modifier(each, plan.heads) for each in plan.score.modifiers)


def _modifier(modifier: Modifier, heads: int) -> ModifierView:
    """Scores are exponents of 2, and so are these numbers."""
    match modifier:
        case Softcap(x):
            return ModifierView("softcap", numbers=(("cap_log2", x * math.log2(math.e)),))
        case Alibi():
            slopes = tuple(slope / math.log(2) for slope in modifier.of_heads(heads))
            return ModifierView("alibi", tables=(("head_slopes", slopes),))
        case KeyBias():
            return ModifierView("key_bias")
        case LearnedSink():
            return ModifierView("learned_sink")
        case _:
            assert_never(modifier)


def score_view(plan: KernelPlan) -> ScoreView:
    """What happens to the scores of a tile."""
    of_head: list[str] = []
    lines: list[str] = []
    gradient: list[str] = []
    arguments: list[str] = []
    factor = _FACTOR
    for modifier in modifiers_of(plan):
        name = modifier.name
        if number := _call(plan, name, "of_head", arguments):
            of_head.append(f"{name} = {number}")
        back = _call(plan, name, "gradient", arguments)
        if score := _call(plan, name, "score", arguments, factor):
            beside = f"{name}_kept" if back else "kept" if name == _KEY_BIAS else ""
            lines.append(f"scores, {beside} = {score}" if beside else f"scores = {score}")
            factor = "1.0"
        if back:
            gradient.insert(0, f"ds = {back}")
    named = tuple(dict.fromkeys(arguments))
    tensors, sizes = (tuple(each for each in named if (each in BIAS_SIZES) == size) for size in (False, True))
    return ScoreView(factor, tuple(of_head), tuple(lines), tuple(gradient), tensors, sizes)


def start_view(plan: KernelPlan) -> StartView:
    """Row maxima and row sums before the first key, of `zeros` as many as there are rows."""
    arguments: list[str] = []
    calls = [call for each in modifiers_of(plan) if (call := _call(plan, each.name, "start", arguments))]
    assert len(calls) <= 1, "rows start in one way"
    return StartView(calls[0] if calls else "none_seen(zeros)", tuple(arguments))


def rows_view(plan: KernelPlan) -> RowsView:
    """What the gradients of rows give the modifiers."""
    arguments: list[str] = []
    calls = [call for each in modifiers_of(plan) if (call := _call(plan, each.name, "row_gradient", arguments))]
    return RowsView(tuple(calls), tuple(arguments))


def _call(plan: KernelPlan, name: str, part: str, arguments: list[str], factor: str = "") -> str:
    """The call of function <name>_<part>, empty if there is none; its arguments of a launch go to `arguments`."""
    function = functions().get(f"{name}_{part}")
    if function is None:
        return ""
    key_row = "begin" if plan.documents is Documents.RESTART else "0"
    values = {"factor": factor, "WIDE": str(plan.dtype == "float32"), "HEADS": str(plan.heads), "KEY_ROW": key_row}
    own = {name, f"{name}_kept", *_VARIABLES, *values}
    arguments.extend(parameter for parameter in function.parameters if parameter not in own)
    return f"{function.name}({', '.join(values.get(parameter, parameter) for parameter in function.parameters)})"


_VARIABLES = ("scores", "i", "j", "ds", "head", "zeros", "program", "natural", "dead", "sums", "batch")
"""What the kernels call what they hand to modifiers."""
