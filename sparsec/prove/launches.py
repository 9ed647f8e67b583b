"""A compilation -> the launches of its kernels."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.diagnostics.model import InternalError
from sparsec.ir.bands.kept import token_ordinals
from sparsec.ir.bands.normalise import TooManyBands
from sparsec.pipeline import Compilation
from sparsec.plan.kernel import HeadClass
from sparsec.plan.kv.cached import CachedPlan, NoCache
from sparsec.prove.tile_setting import ProgramKind
from sparsec.sema.model import Documents


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel's name, and the classes of heads that it is launched for."""

    name: str
    kind: ProgramKind
    classes: tuple[HeadClass, ...]
    of_gradients: bool = False


def launches(compilation: Compilation, plans: tuple[CachedPlan, ...]) -> tuple[Launch, ...]:
    """The launches, those of the `cached` plans included.

    Raises TooManyBands or TooManyClasses; ValueError for a target of another form; InternalError for a launch that
    leaves out a head or takes it twice.
    """
    pattern, backward = compilation.pattern, compilation.backward
    forward = ProgramKind.IN_DOCUMENT if pattern.documents is Documents.SEPARATE else ProgramKind.FORWARD
    found = [
        Launch("forward", forward, compilation.forward.classes),
        Launch("gradients of queries", forward, backward.forward.classes, True),
        Launch("gradients of keys", ProgramKind.TRANSPOSED, backward.transposed, True),
    ]
    for name, plan in zip(("cached chunks", "cached rows"), plans, strict=False):
        found.append(Launch(name, ProgramKind.FORWARD, plan.attend.classes))
    if plans and token_ordinals(pattern.inputs):
        for name, plan in zip(("kept chunks", "kept rows"), compilation.kept, strict=True):
            found.append(Launch(name, ProgramKind.FORWARD, plan.attend.classes))
    for launch in found:
        if sorted(head for each in launch.classes for head in each.heads) != list(range(pattern.heads)):
            raise InternalError(f"{launch.name}: a head is launched for once")
    return tuple(found)


def cached(compilation: Compilation) -> tuple[CachedPlan, ...]:
    """The plans over a KV cache, of chunks and of few queries; none for a pattern that has no cache."""
    try:
        return compilation.cached
    except (NoCache, TooManyBands):  # the heads of a KV group may have more bands together than each has
        return ()
