"""The score modifiers of a plan -> what the CPU kernels have for each: a header, a struct, numbers that are printed.

Invariant: modifiers come in the order in which they change a score.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from math import log

from sparsec.plan.kernel import KernelPlan


@dataclass(frozen=True, slots=True)
class Modifier:
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
    modifiers = tuple(_modifiers(plan))
    if not modifiers:
        return ModifiersView(("unchanged",), "Unchanged", ())
    headers = (*(("both",) if len(modifiers) > 1 else ()), *(each.header for each in modifiers))
    structs = [each.struct for each in reversed(modifiers)]
    return ModifiersView(
        headers,
        reduce(lambda later, first: f"Both<{first}, {later}>", structs),
        tuple(constant for each in modifiers for constant in each.constants),
    )


def _modifiers(plan: KernelPlan) -> Iterator[Modifier]:
    score = plan.score
    if score.softcap is not None:
        yield Modifier("softcap", "Softcap", (("SOFTCAP", _real(score.softcap)),))
    if score.alibi:
        slopes = ", ".join(_real(slope / log(2)) for slope in score.slopes(plan.heads))
        yield Modifier("alibi", "Alibi", (("SLOPES[HEADS]", f"{{{slopes}}}"),))
    if score.learned_sink:
        yield Modifier("learned_sink", "LearnedSink")


def _real(value: float) -> str:
    return f"{float(value)!r}f"
