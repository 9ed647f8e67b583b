"""The score modifiers of a plan -> what the CPU kernels have for each: a header, a struct, numbers that are printed.

Invariant: modifiers come in the order in which they change a score.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import log
from typing import assert_never

from sparsec.plan.kernel import KernelPlan
from sparsec.sema.modifiers import Alibi, KeyBias, LearnedSink, Modifier, Softcap


@dataclass(frozen=True, slots=True)
class ModifierView:
    """`struct` of templates/cpu/kernels/modifiers/`header`.h, which reads the `constants` (declarator, initialiser)."""

    header: str
    struct: str
    constants: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ModifiersView:
    """The headers of all modifiers, the type that is all of them in turn, and the numbers that they read."""

    headers: tuple[str, ...]
    type: str
    constants: tuple[tuple[str, str], ...]


def modifiers_view(plan: KernelPlan) -> ModifiersView:
    modifiers = tuple(_modifier(each, plan.heads) for each in plan.score.modifiers)
    if not modifiers:
        return ModifiersView(("unchanged",), "Unchanged", ())
    headers = (*(("both",) if len(modifiers) > 1 else ()), *(each.header for each in modifiers))
    structs = [each.struct for each in reversed(modifiers)]
    return ModifiersView(
        headers,
        reduce(lambda later, first: f"Both<{first}, {later}>", structs),
        tuple(constant for each in modifiers for constant in each.constants),
    )


def _modifier(modifier: Modifier, heads: int) -> ModifierView:
    match modifier:
        case Softcap(x):
            return ModifierView("softcap", "Softcap", (("SOFTCAP", _real(x)),))
        case Alibi():
            slopes = ", ".join(_real(slope / log(2)) for slope in modifier.of_heads(heads))
            return ModifierView("alibi", "Alibi", (("SLOPES[HEADS]", f"{{{slopes}}}"),))
        case KeyBias():
            return ModifierView("key_bias", "KeyBias")
        case LearnedSink():
            return ModifierView("learned_sink", "LearnedSink")
        case _:
            assert_never(modifier)


def _real(value: float) -> str:
    return f"{float(value)!r}f"
