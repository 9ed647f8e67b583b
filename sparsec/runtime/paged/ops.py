"""The custom operators `sparsec::attend_paged` and `sparsec::append_paged`: what torch sees of a call over pages.

Invariant: nothing of a call waits for a device, but where a kernel reads lengths on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparsec.backends.paged import Pages
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.runtime.inputs.packed import of_requests
from sparsec.runtime.inputs.prepare import CallShape
from sparsec.runtime.kernel import LoadedKernel, lookups, registered
from sparsec.runtime.kv.ops import refuse_derivatives
from sparsec.runtime.tangents import library

WHERE = "over pages"

torch.library.define(
    "sparsec::attend_paged",
    "(Tensor q, Tensor keys, Tensor values, Tensor table, Tensor starts, Tensor lengths, Tensor? sink,"
    " Tensor[]? inputs, str kernel, float? scale) -> (Tensor, Tensor)",
)
torch.library.define(
    "sparsec::append_paged",
    "(Tensor k, Tensor v, Tensor(a!) keys, Tensor(b!) values, Tensor slots) -> ()",
)


@torch.library.impl("sparsec::attend_paged", "CompositeExplicitAutograd")
def _attend_paged(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    starts: Tensor,
    lengths: Tensor,
    sink: Tensor | None,
    inputs: list[Tensor] | None,
    kernel: str,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """As `backends.paged.PagedKernel.attend`; inputs: the tensors of all inputs in order."""
    pages = Pages(keys, values, table, starts, lengths)
    return attend_pages(registered(kernel, q.device), q, pages, sink, inputs or (), scale)


def attend_pages(
    loaded: LoadedKernel,
    q: Tensor,
    pages: Pages,
    sink: Tensor | None,
    inputs: Sequence[Tensor],
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """What the operator does."""
    kernel, longest = loaded.paged, min(pages.longest, POSITION_LIMIT - 1)
    lists = loaded.paged_draws.tables(longest, 0, q.device)
    if not inputs:
        return kernel.attend(q, pages, scale=scale, lists=lists, sink=sink)
    said = of_requests(loaded.launch.declared, inputs, pages.starts, longest)
    found = lookups(kernel.plan.chunks, said, CallShape(1, longest, longest - 1))
    bias = loaded.key_bias(said)
    return kernel.attend(q, pages, scale=scale, lists=lists, sink=sink, inputs=found, key_bias=bias)


@torch.library.register_fake("sparsec::attend_paged")  # type: ignore[untyped-decorator]  # torch leaves it untyped
def _(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    starts: Tensor,
    lengths: Tensor,
    sink: Tensor | None,
    inputs: list[Tensor] | None,
    kernel: str,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty((*q.shape[:2], values.shape[3])), q.new_empty(q.shape[:2], dtype=wide)


@torch.library.impl("sparsec::append_paged", "CompositeExplicitAutograd")
def _append_paged(k: Tensor, v: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    """Writes rows of k and v to their slots: page * page_size + row. Slots that the pages have not are left out.

    Of these the row of another token is written once more where that one goes, so that the host need not know which
    they are; where there is no other, what lies in slot 0 stays.
    """
    if not len(slots) or not len(keys):
        return
    size = keys.shape[1]
    there = (slots >= 0) & (slots < keys.shape[0] * size)
    order = torch.arange(len(slots), device=slots.device)
    source = torch.where(there, order, there.int().argmax())
    slot = torch.where(there.any(), slots[source], 0)
    page, row = slot // size, slot % size
    for pages, new in ((keys, k), (values, v)):
        pages[page, row] = torch.where(there.any(), new[source], pages[0, 0])


@torch.library.register_fake("sparsec::append_paged")  # type: ignore[untyped-decorator]  # torch leaves it untyped
def _(k: Tensor, v: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    return None


attend_paged = torch.ops.sparsec.attend_paged
append_paged = torch.ops.sparsec.append_paged


def _without_derivatives(keyset: torch._C.DispatchKeySet, *arguments: Any) -> Any:
    q, keys, values, *_ = arguments
    refuse_derivatives(q, keys, values, arguments[6], arguments[7] or (), where=WHERE)
    with torch._C._AutoDispatchBelowAutograd():
        return attend_paged.default.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)


library.impl("attend_paged", _without_derivatives, "Autograd", with_keyset=True)


def _written_without_derivatives(keyset: torch._C.DispatchKeySet, *arguments: Any) -> None:
    k, v, keys, values, _ = arguments
    refuse_derivatives(k, v, keys, None, (values,), where=WHERE)
    with torch._C._AutoDispatchBelowAutograd():
        append_paged.default.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)


library.impl("append_paged", _written_without_derivatives, "Autograd", with_keyset=True)
