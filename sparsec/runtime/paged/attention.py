"""The methods of `SparseAttention` over a server's pages: each checks a call, and hands it to its operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor

from sparsec.diagnostics.arguments import instance, integer
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.plan.kv.pages import dead_pages
from sparsec.runtime.inputs.checks import InputTensors, flat_inputs
from sparsec.runtime.kv.ops import refuse_derivatives
from sparsec.runtime.paged import ops
from sparsec.runtime.paged.checks import check_pages, check_rows, check_slots, check_table, pages_of
from sparsec.sema.shapes import Sizes

if TYPE_CHECKING:
    from sparsec.runtime.module import SparseAttention


@overload
def over_pages(
    self: SparseAttention,
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    *,
    block_table: Tensor,
    cu_seqlens_q: Tensor,
    seq_lens: Tensor,
    inputs: Mapping[str, InputTensors] | None = None,
    return_lse: Literal[False] = False,
    check_inputs: bool = False,
) -> Tensor: ...


@overload
def over_pages(
    self: SparseAttention,
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    *,
    block_table: Tensor,
    cu_seqlens_q: Tensor,
    seq_lens: Tensor,
    inputs: Mapping[str, InputTensors] | None = None,
    return_lse: Literal[True],
    check_inputs: bool = False,
) -> tuple[Tensor, Tensor]: ...


def over_pages(
    self: SparseAttention,
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    *,
    block_table: Tensor,
    cu_seqlens_q: Tensor,
    seq_lens: Tensor,
    inputs: Mapping[str, InputTensors] | None = None,
    return_lse: bool = False,
    check_inputs: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attends to keys that lie in pages: several requests in one call, each with any number of new queries.

    q: [tokens, heads, head_dim]; k_pages: [pages, page_size, kv_heads, head_dim]; v_pages: [pages, page_size, kv_heads,
    value_dim]; all of `dtype`, on one device, any strides. Under autocast q is cast to `dtype`.
    cu_seqlens_q: int32 [requests + 1], from 0 to the tokens without a decrease: the rows of q of each request.
    seq_lens: int32 [requests]: the tokens of each request with those of the call, which are its last ones and whose
    keys and values are in their pages already (see `append_paged`).
    block_table: int32 [requests, most pages]: in which page each page_size tokens of a request lie. No page that
    `dead_pages` gives for the position of a request's first query is looked up or read, nor are rows past its end.
    inputs: of each input that the pattern declares its tensor, or its pair of tensors, by name, on q's device, as of a
    call that has a sequence for each request; but what speaks of single queries is packed as q is: lists of `rows` are
    [1, x, tokens, c] and labels of queries [1, x, tokens]. What speaks of keys speaks of positions from 0 on, of as
    many as are given: those past them are not marked, and have no label and a weight of 0. Row 0 of `blocks` is that of
    a request's first query. A `tree` has the parents of the first n queries of a request among these, -1 for a root;
    those of a request with fewer queries come first, and one with more has no tree.
    check_inputs: whether the numbers of block_table and of inputs are read and checked; otherwise an entry of the table
    that is no page's, and is read, counts as the nearest that is. It waits for the device.
    Returns out, [tokens, heads, value_dim]; with `return_lse` also the natural-log LSE, float32 [tokens, heads]. A
    query that may attend to nothing has output 0 and LSE -inf (the sink, where there is one). Without gradients. Raises
    CallError, and as `layout` does.
    """
    layout, of = self.layout, self._tensors
    instance("q", q, Tensor)
    if torch.is_autocast_enabled("cpu" if q.is_cpu else q.device.type):
        q = q.to(self.dtype)
    check_rows(of, {"q": (q, of.heads, of.head_dim)})
    check_pages(of, k_pages, v_pages, q.device)
    pages = pages_of(q, k_pages, v_pages, block_table, cu_seqlens_q, seq_lens)
    sizes = Sizes(len(pages.lengths), self.heads, self.kv_heads, q.shape[0], 0, None, None, packed=True)
    block = self._described().pattern.block if check_inputs and self.inputs else None
    flat = flat_inputs(self.inputs, inputs, sizes, q, block=block) if self.inputs or inputs is not None else []
    if check_inputs:
        check_table(pages, layout, q.shape[0])
    sink = None if self.sink is None else self.sink.detach().float()
    refuse_derivatives(q, k_pages, v_pages, self.sink, flat, where=ops.WHERE)
    held = pages.keys, pages.values, pages.table, pages.starts, pages.lengths
    out, lse = ops.attend_paged(q, *held, sink, flat or None, self.kernel_digest, self.scale)
    return (out, lse) if return_lse else out


def into_pages(
    self: SparseAttention,
    k: Tensor,
    v: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    slot_mapping: Tensor,
    *,
    check_inputs: bool = False,
) -> None:
    """Writes keys and values of new tokens into pages.

    k: [tokens, kv_heads, head_dim], v: [tokens, kv_heads, value_dim], k_pages and v_pages: as of `paged`.
    slot_mapping: int32 or int64 [tokens]: page * page_size + row of each token, no two the same; a token with a
    negative number, or with one past the pages, is written nowhere.
    check_inputs: whether the numbers are read, and those past the pages and those that come twice refused. Raises
    CallError.
    """
    of = self._tensors
    instance("k", k, Tensor)
    check_rows(of, {"k": (k, of.kv_heads, of.head_dim), "v": (v, of.kv_heads, of.value_dim)})
    check_pages(of, k_pages, v_pages, k.device)
    check_slots(slot_mapping, k, k_pages, values=check_inputs)
    refuse_derivatives(k, v, k_pages, None, (v_pages,), where=ops.WHERE)
    ops.append_paged(k, v, k_pages, v_pages, slot_mapping)


def freed_pages(self: SparseAttention, seq_len: int, page_size: int) -> list[range]:
    """The pages of a request with `seq_len` tokens that no query at or after position seq_len - 1 can need, for any
    head: a server may give them to another request. In ascending order, each range as long as it can be.

    Raises as `layout` does, and CallError.
    """
    size = integer("page_size", page_size, 1, POSITION_LIMIT)
    return dead_pages(self.layout, integer("seq_len", seq_len, 1, POSITION_LIMIT - 1), size)
