"""A plan and the bands that it was made of -> the same plan, checked by the statements of the IR if the user asks.

Invariant: without `SPARSEC_VERIFY=1` in the environment nothing is checked and nothing imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeVar

from sparsec.ir.bands.band import Band
from sparsec.ir.bands.classes import BlockMask
from sparsec.ir.expr.scalars import DOCUMENT, FORWARD, TRANSPOSED, Frame
from sparsec.plan.kernel import BackwardPlan, HeadClass, KernelPlan
from sparsec.plan.kv.cached import CachedPlan
from sparsec.sema.model import Documents

_Plan = TypeVar("_Plan", KernelPlan, BackwardPlan, CachedPlan)


def verified(plan: _Plan, mask: BlockMask, transposed: BlockMask | None = None) -> _Plan:
    """The plan that was made of `mask` (and, of gradients, of `transposed`).

    With `SPARSEC_VERIFY=1`, raises InternalError if the bands or a tile program are not what they promise to be.
    """
    if os.environ.get("SPARSEC_VERIFY") == "1":
        _verify(plan, mask, transposed)
    return plan


def _verify(plan: KernelPlan | BackwardPlan | CachedPlan, mask: BlockMask, transposed: BlockMask | None) -> None:
    from sparsec.ir.bands.verify import verify_mask, verify_transposed  # imported where it is used, for it needs NumPy

    verify_mask(mask)
    match plan:
        case KernelPlan():
            _verify_programs(plan.classes, mask, DOCUMENT if plan.documents is Documents.SEPARATE else FORWARD)
        case CachedPlan():
            _verify_programs(plan.attend.classes, mask, FORWARD)
        case BackwardPlan():
            _verify(plan.forward, mask, None)
            assert transposed is not None
            verify_transposed(mask, transposed)
            _verify_programs(plan.transposed, transposed, TRANSPOSED)


def _verify_programs(classes: tuple[HeadClass, ...], mask: BlockMask, frame: Frame) -> None:
    from sparsec.ir.tiles.verify import verify_program

    bands: Mapping[int, tuple[Band, ...]] = {head: of.bands for of in mask.classes for head in of.heads}
    for of_heads in classes:
        verify_program(of_heads.program, bands[of_heads.heads[0]], of_heads.constants, frame)
