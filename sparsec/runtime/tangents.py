"""Forward-mode derivatives of the custom operators: there are none, and a tangent is refused.

Invariant: torch takes the tangent of an operator without such a derivative as zero, so each is checked at the Autograd
key, the last one at which `torch.func.jvp` and `forward_ad` both show it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sparsec.diagnostics.model import SparsecError

_unpack: Callable[[Tensor], forward_ad.UnpackedDualTensor] = forward_ad.unpack_dual


def refuse_tangents(arguments: Iterable[object]) -> None:
    """Raises SparsecError if a tensor among them has a tangent."""
    if forward_ad._current_level < 0:  # as unpack_dual finds out, in a tenth of the time
        return
    for each in arguments:
        if isinstance(each, Tensor) and _unpack(each).tangent is not None:
            raise SparsecError(
                "expected no forward-mode derivative (torch.func.jvp, torch.autograd.forward_ad), got a tangent: "
                "attention has a backward pass alone; target 'reference' has both"
            )


class _Refusing(torch.library.Library):
    """Registers autograd kernels behind that check."""

    def impl(self, op_name: Any, fn: Callable[..., Any], dispatch_key: str = "", **more: Any) -> None:
        def checked(keyset: torch._C.DispatchKeySet, *arguments: Any) -> Any:
            refuse_tangents(arguments)
            return fn(keyset, *arguments)

        super().impl(op_name, checked, dispatch_key, **more)  # type: ignore[no-untyped-call]  # torch leaves it untyped


library: Any = _Refusing("sparsec", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch leaves it untyped
"""For `torch.library.register_autograd(..., lib=library)` and `library.impl(..., "Autograd", with_keyset=True)`."""
