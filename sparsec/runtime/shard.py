"""A compiled pattern -> the same of one rank: of its heads, as tensor parallel ranks hold them, or of its tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from sparsec.diagnostics.arguments import integer
from sparsec.diagnostics.model import CallError
from sparsec.pipeline import Lowered

if TYPE_CHECKING:
    from sparsec.distributed import HeadPlan, Plan
    from sparsec.distributed.attention import ParallelAttention
    from sparsec.distributed.heads import HeadParallelAttention
    from sparsec.runtime.module import SparseAttention


def of_rank(self: SparseAttention, rank: int, size: int) -> SparseAttention:
    """The module of rank `rank`'s heads, of `size` ranks that have as many query heads each, one after another.

    Ranks have whole KV groups; where there are more ranks than groups, the query heads of a group lie on several ranks,
    each of which has its KV head. A learned sink's logits are copied. Raises CallError where the heads do not divide.
    """
    from sparsec.runtime.compile import module_for  # which imports the module's class

    size = integer("size", size, 1)
    rank = integer("rank", rank, 0, size - 1)
    if size == 1:
        return self
    if self.heads % size or (self.kv_heads % size and size % self.kv_heads):
        raise CallError(
            f"expected ranks that divide {self.heads} heads and {self.kv_heads} KV heads, or whose number the KV heads "
            f"divide, got {size}"
        )
    heads, kv_heads = self.heads // size, max(1, self.kv_heads // size)
    part = slice(rank * heads, (rank + 1) * heads)
    request = self._described()
    whole = request.pattern
    score = whole.score.part(whole.heads, part)
    own = replace(whole, heads=heads, kv_heads=kv_heads, terms=whole.terms[part], score=score)
    found = module_for(replace(request, lowered=Lowered(own), file_layout=None), self.target, self._device)
    found.scale = self.scale
    if self.sink is not None:
        found.sink = nn.Parameter(self.sink.detach()[part].clone())
    return found


def on_ranks(
    self: SparseAttention, plan: Plan | HeadPlan, *, overlap: bool = False
) -> ParallelAttention | HeadParallelAttention:
    """The module on this rank's part of a sequence that several ranks hold, by `sparsec.distributed.plan`.

    overlap: keys of a chunk are attended to by its own queries while the others are on their way; two kernels then do
    the work of one. Raises CallError for another pattern's plan.
    """
    return plan.over(self, overlap=overlap)
