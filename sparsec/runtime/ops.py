"""The custom operator `sparsec::forward`: what autograd, `torch.compile` and `torch.export` see of a kernel.

Invariant: outputs are new contiguous tensors, whatever the strides of the inputs; the fake says exactly that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsec.diagnostics.model import SparsecError
from sparsec.runtime.draws import draw_tables
from sparsec.runtime.kernel import registered


@torch.library.custom_op("sparsec::forward", mutates_args=())
def forward(q: Tensor, k: Tensor, v: Tensor, kernel: str, q_offset: int, scale: float | None) -> tuple[Tensor, Tensor]:
    """Attention by the kernel registered under digest `kernel`: (out like q, LSE float32 [B, H, Nq])."""
    loaded = registered(kernel)
    lists = draw_tables(loaded.lists, q.shape[2], q_offset, q.device)
    return loaded.kernel.forward(q, k, v, q_offset=q_offset, scale=scale, lists=lists)


@forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, kernel: str, q_offset: int, scale: float | None) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=torch.float32)


def _backward(ctx: object, grad_out: Tensor, grad_lse: Tensor) -> tuple[None, ...]:
    raise SparsecError(
        "expected a forward pass alone, got a call of backward(): this kernel has no gradient; "
        "target='reference' (dense) has one"
    )


forward.register_autograd(_backward)
