"""The `torch` target: runs a kernel plan in plain PyTorch, tile by tile; any device, no compiler.

Invariant: memory stays within a chunk of columns for one tile of rows; nothing of size Nq x Nk is built, and two runs
give the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsec.backends.base import Lookup
from sparsec.backends.torch.modifiers import modified, of_heads
from sparsec.backends.torch.tiles import Block, HeadGroup, key_blocks, query_blocks, shares
from sparsec.plan.kernel import BackwardPlan, KernelPlan
from sparsec.plan.target import TORCH_ROWS
from sparsec.sema.modifiers import KeyBias, Modifier


@dataclass(frozen=True, slots=True)
class TorchKernel:
    """Attention by a plan. float64 inputs are computed in float64, all others in float32."""

    plan: KernelPlan

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        q_offset: int,
        scale: float | None,
        lists: tuple[Tensor, ...] = (),
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `backends.base.ForwardKernel`."""
        out = q.new_zeros((*q.shape[:3], v.shape[3]))
        lse = q.new_full(q.shape[:3], -math.inf, dtype=wide_type(q))
        score = Scores.of(self.plan, q, scale, key_bias)
        for heads, sequence in shares(self.plan, self.plan.classes, q, k, q_offset, cu_seqlens, inputs):
            keys_of, values_of = k[sequence.batch], v[sequence.batch]
            for rows, blocks in query_blocks(heads, sequence):
                at = (sequence.batch, heads.heads, rows)
                queries = q[at].to(score.wide)
                state = State.start(queries, v.shape[-1], None if sink is None else sink[heads.heads])
                for block in blocks:
                    keys, values = columns_of(keys_of, heads.groups, block), columns_of(values_of, heads.groups, block)
                    bias = score.bias_of(at, block)
                    keys, values = kept(keys, bias), kept(values, bias)
                    scores, _ = score.of_block(queries, keys, block, heads, bias)
                    state = state.step(scores, values, block.live)
                out[at] = state.output().to(out.dtype)
                lse[at] = state.log_sum_exp()
        return out, lse


@dataclass(frozen=True, slots=True)
class TorchBackward:
    """The gradients of `TorchKernel`."""

    plan: BackwardPlan

    def build(self) -> None:
        """There is nothing to build."""

    def backward(
        self,
        grad_out: Tensor,
        grad_lse: Tensor | None,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        *,
        q_offset: int,
        scale: float | None,
        lists: tuple[Tensor, ...] = (),
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
        of_bias: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """See `backends.base.BackwardKernel`; the chain rule of Dao et al. 2022 (FlashAttention), algorithm 4."""
        plan = self.plan
        score = Scores.of(plan.forward, q, scale, key_bias)
        wide = score.wide
        delta = (grad_out.to(wide) * out.to(wide)).sum(dim=-1)
        if grad_lse is not None:
            delta = delta - grad_lse.to(wide)
        # A row that saw no key has LSE -inf; +inf makes each of its weights exp(-inf) = 0.
        log_sum = lse.to(wide).masked_fill(lse == -math.inf, math.inf)
        # A row whose output is not finite and that has no gradient has no part in any, not even a NaN.
        silent = delta.isnan() & (grad_out == 0).all(dim=-1)
        if grad_lse is not None:
            silent &= grad_lse == 0
        if silent.any():
            q = q.masked_fill(silent[..., None], 0)
            delta, log_sum = delta.masked_fill(silent, math.inf), log_sum.masked_fill(silent, math.inf)
        dq = torch.zeros(q.shape, dtype=wide, device=q.device)
        dk, dv = (torch.zeros(t.shape, dtype=wide, device=q.device) for t in (k, v))
        dbias = torch.zeros((*q.shape[:2], k.shape[2]), dtype=wide, device=q.device) if of_bias else None
        for heads, sequence in shares(plan.forward, plan.forward.classes, q, k, q_offset, cu_seqlens, inputs):
            keys_of, values_of = k[sequence.batch], v[sequence.batch]
            for rows, blocks in query_blocks(heads, sequence):
                at = (sequence.batch, heads.heads, rows)
                queries, gradient = q[at].to(wide), grad_out[at].to(wide)
                for block in blocks:
                    keys, values = columns_of(keys_of, heads.groups, block), columns_of(values_of, heads.groups, block)
                    bias = score.bias_of(at, block)
                    keys, values = kept(keys, bias), kept(values, bias)
                    weights, slope, of_scores = score.gradient(
                        queries, keys, values, gradient, log_sum[at], delta[at], block, heads, bias
                    )
                    dq[at] += seen_sums(slope, keys, block.live)
                    if block.own:
                        _add_to_own(dv[at[0]][0, heads.groups[0]], block, weights, gradient)
                        _add_to_own(dk[at[0]][0, heads.groups[0]], block, slope, queries)
                    if block.own and dbias is not None:
                        dbias[at[0]][0, heads.heads[0]].index_put_((block.columns,), of_scores[0, 0], accumulate=True)
        for heads, sequence in shares(plan.forward, plan.transposed, q, k, q_offset, cu_seqlens, inputs):
            queries_of, gradients_of = q[sequence.batch], grad_out[sequence.batch]
            sums_of, deltas_of = log_sum[sequence.batch, heads.heads], delta[sequence.batch, heads.heads]
            for columns, blocks in key_blocks(heads, sequence):
                at_keys = (sequence.batch, heads.groups, columns)
                of_keys = (sequence.batch, heads.heads, columns)
                bias = None if score.bias is None else score.bias[of_keys][:, :, None]
                keys, values = kept(k[at_keys].to(wide), bias), kept(v[at_keys].to(wide), bias)
                for block in blocks:
                    queries = columns_of(queries_of, heads.heads, block)
                    gradient = columns_of(gradients_of, heads.heads, block)
                    sums, deltas = (t[:, :, block.columns] for t in (sums_of, deltas_of))
                    weights, slope, of_scores = score.gradient(
                        queries, keys, values, gradient, sums, deltas, block, heads, bias
                    )
                    if dbias is not None:
                        dbias[of_keys] += of_scores.sum(dim=-2)
                    for n, group in enumerate(heads.groups):
                        seen = None if block.live is None else block.live.mT
                        of_head = None if bias is None else bias[:, n]
                        added = seen_sums(weights[:, n].mT, gradient[:, n], seen)
                        dv[sequence.batch, group, columns] += kept(added, of_head)
                        added = seen_sums(slope[:, n].mT, queries[:, n], seen)
                        dk[sequence.batch, group, columns] += kept(added, of_head)
        dsink = None
        if sink is not None:
            # Empty rows have the sink alone in their LSE, and delta is -grad_lse there.
            dsink = -(torch.exp(sink.to(wide)[:, None] - log_sum) * delta).sum(dim=(0, 2)).to(sink.dtype)
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), dsink, dbias


def wide_type(q: Tensor) -> torch.dtype:
    """The type that scores are computed in."""
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def columns_of(tensor: Tensor, heads: list[int], block: Block) -> Tensor:
    """[B, heads, columns, D] in the wide type; zeros where no row of the tile sees the column, which may hold NaN.

    Of a block with `own` columns: [B, heads, rows, columns, D].
    """
    found = tensor[:, heads][:, :, block.columns].to(wide_type(tensor))
    if block.live is None:
        return found
    return found.where((block.live if block.own else block.live.any(dim=block.row_dim))[..., None], 0)


def kept(columns: Tensor, bias: Tensor | None) -> Tensor:
    """Columns [.., n, D], zeros where their bias [.., 1, n] is -inf; of a bias [.., rows, n] each row has its own."""
    if bias is None:
        return columns
    of_columns = bias.mT if columns.dim() == bias.dim() else bias[..., None]
    return columns.where(of_columns != -math.inf, 0)


def _add_to_own(sums: Tensor, block: Block, weights: Tensor, rows: Tensor) -> None:
    """Adds to each key of a block with `own` columns its weights [1, 1, rows, columns] times the rows [1, 1, rows, D].

    sums: [Nk, D]. Equal indices are added up in their order, on every device.
    """
    added = weights[0, 0, ..., None] * rows[0, 0, :, None]
    sums.index_put_((block.columns,), added.where(weights[0, 0, ..., None] != 0, 0), accumulate=True)


@dataclass(frozen=True, slots=True)
class Scores:
    """From q.k to the score, and back from the score's gradient. `modifiers`: each with its numbers [heads], if any.

    `bias`: what keys add, [B, H, Nk], where the pattern has it.
    """

    factor: float
    modifiers: tuple[tuple[Modifier, Tensor | None], ...]
    wide: torch.dtype
    bias: Tensor | None = None

    @staticmethod
    def of(plan: KernelPlan, q: Tensor, scale: float | None, key_bias: Tensor | None) -> Scores:
        given = scale if scale is not None else plan.score.scale
        wide = wide_type(q)
        modifiers = [(each, of_heads(each, plan.heads, q.device, wide)) for each in plan.score.modifiers]
        bias = None
        if key_bias is not None:
            each_head = key_bias.to(wide).repeat_interleave(plan.heads // key_bias.shape[1], dim=1)
            bias = each_head.expand(q.shape[0], -1, -1)
        return Scores(given if given is not None else 1 / math.sqrt(q.shape[-1]), tuple(modifiers), wide, bias)

    def bias_of(self, at: tuple[slice, list[int], slice], block: Block) -> Tensor | None:
        """What the block's columns, which are keys, add: [B, heads, 1, keys], or [B, heads, rows, keys] of `own` ones.

        `at`: the sequences, the query heads, and their rows.
        """
        if self.bias is None:
            return None
        found = self.bias[at[0]][:, at[1]][:, :, block.j[0] if block.kept else block.columns]
        return found if block.own else found[:, :, None]

    def of_block(
        self, queries: Tensor, keys: Tensor, block: Block, heads: HeadGroup, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Scores [B, heads, queries, keys], -inf where not live; and d score / d (scale * q.k), None standing for 1.

        `bias`: as of `bias_of`.
        """
        scores = _products(queries, keys) * self.factor
        derivative = None
        for modifier, numbers in self.modifiers:
            of_these = bias if isinstance(modifier, KeyBias) else None if numbers is None else numbers[heads.heads]
            scores, own = modified(modifier, of_these, scores, block.i, block.j)
            derivative = own if derivative is None else derivative if own is None else derivative * own
        if block.live is not None:
            scores = scores.masked_fill(~block.live, -math.inf)
        return scores, derivative

    def gradient(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        grad_out: Tensor,
        log_sum: Tensor,
        delta: Tensor,
        block: Block,
        heads: HeadGroup,
        bias: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Soft-max weights, and the gradients of q.k and of the score, all [B, heads, queries, keys]."""
        scores, derivative = self.of_block(queries, keys, block, heads, bias)
        weights = torch.exp(scores - log_sum[..., None])
        of_scores = weights * (_products(grad_out, values) - delta[..., None])
        if block.live is not None:  # a pair that is not live may have met a NaN
            weights, of_scores = weights.where(block.live, 0), of_scores.where(block.live, 0)
        silent = (delta == math.inf) & (log_sum == math.inf)
        if silent.any():
            of_scores = of_scores.masked_fill(silent[..., None], 0)
        gradient = of_scores * self.factor
        if derivative is not None:
            gradient = gradient * derivative
            if block.live is not None:
                gradient = gradient.where(block.live, 0)
        return weights, gradient, of_scores


def _products(rows: Tensor, columns: Tensor) -> Tensor:
    """[B, heads, n, m] of rows [B, heads, n, D] with columns [B, heads, m, D], or each with its own [.., n, m, D]."""
    if columns.dim() == rows.dim():
        return rows @ columns.mT
    return (columns @ rows[..., None])[..., 0]


def seen_sums(weights: Tensor, rows: Tensor, live: Tensor | None) -> Tensor:
    """weights [..., n, m] @ rows [..., m, D]; a sum takes nothing, not even a NaN, from a row that `live` leaves out.

    `live`: bool [n, m], None for all; the weight of what it leaves out is 0. Of rows [..., n, m, D], each sum has its
    own, those that are left out being 0.
    """
    if rows.dim() > weights.dim():
        return (weights[..., None, :] @ rows)[..., 0, :]
    finite = rows.isfinite().all(dim=-1, keepdim=True)
    if live is None or finite.all():
        return weights @ rows
    sums = weights @ rows.where(finite, 0)
    others = (~finite).flatten(end_dim=-3).any(dim=0)[:, 0].nonzero()[:, 0]
    for part in torch.split(others, TORCH_ROWS):
        products = weights[..., part, None] * rows[..., None, part, :]
        taken = live[:, part, None] & ~finite[..., None, part, :]
        sums = sums + products.where(taken, 0).sum(dim=-2)
    return sums


@dataclass(frozen=True, slots=True)
class State:
    """Online soft-max (Milakov and Gimelshein 2018): running maximum, sum and weighted values of each row."""

    maximum: Tensor
    total: Tensor
    values: Tensor

    @staticmethod
    def start(queries: Tensor, value_dim: int, sink: Tensor | None) -> State:
        shape = queries.shape[:3]
        values = queries.new_zeros((*shape, value_dim))
        if sink is None:
            return State(queries.new_full(shape, -math.inf), queries.new_zeros(shape), values)
        return State(sink.to(queries.dtype)[:, None].expand(shape), queries.new_ones(shape), values)

    def step(self, scores: Tensor, values: Tensor, live: Tensor | None) -> State:
        maximum = torch.maximum(self.maximum, scores.amax(dim=-1))
        base = maximum.masked_fill(maximum == -math.inf, 0)
        weights = torch.exp(scores - base[..., None])
        kept = torch.exp(self.maximum - base)
        sums = seen_sums(weights, values, live)
        return State(maximum, self.total * kept + weights.sum(dim=-1), self.values * kept[..., None] + sums)

    def output(self) -> Tensor:
        return self.values / self.total.masked_fill(self.total == 0, 1)[..., None]

    def log_sum_exp(self) -> Tensor:
        return self.maximum + torch.log(self.total)
