"""The `torch` target: runs a kernel plan in plain PyTorch, tile row by tile row; any device, no compiler.

Invariant: memory stays within a chunk of keys for one query tile; nothing of size Nq x Nk is built.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsec.ir import expr as x
from sparsec.ir.walk import draws, listed_at, visits
from sparsec.plan.kernel import HeadClass, KernelPlan

CHUNK_KEYS = 4096
"""Keys taken at a time in one online soft-max step."""


@dataclass(frozen=True, slots=True)
class TorchKernel:
    """Forward attention by a plan. float64 inputs are computed in float64, all others in float32."""

    plan: KernelPlan

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, q_offset: int, scale: float | None, lists: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """q [B, H, Nq, D]; k, v [B, G, Nk, D]. Returns out like q, and the natural-log LSE, float32 [B, H, Nq]."""
        del lists  # the interpreter draws for itself
        out = q.new_zeros(q.shape)
        lse = q.new_full(q.shape[:3], -math.inf, dtype=torch.float32)
        factor = scale if scale is not None else 1 / math.sqrt(q.shape[-1])
        for head_class in self.plan.classes:
            for constants, heads in _alike(head_class):
                self._heads(head_class, constants, heads, q, k, v, q_offset, factor, out, lse)
        return out, lse

    def _heads(
        self,
        head_class: HeadClass,
        constants: Mapping[str, int],
        heads: list[int],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_offset: int,
        factor: float,
        out: Tensor,
        lse: Tensor,
    ) -> None:
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        groups = [h // (self.plan.heads // self.plan.kv_heads) for h in heads]
        size = head_class.program.query_tile
        stop = q_offset + q.shape[2]
        for tile in range(q_offset // size, -(-stop // size)):
            first, last = max(tile * size, q_offset), min(tile * size + size, stop)
            rows = slice(first - q_offset, last - q_offset)
            queries = q[:, heads, rows].to(wide) * factor
            state = _State.start(queries, v.shape[-1])
            for keys, live in _chunks(head_class, constants, (first, last), k.shape[2], q.device):
                selected_k, selected_v = k[:, groups][:, :, keys].to(wide), v[:, groups][:, :, keys].to(wide)
                if live is not None:  # a dead key may hold NaN, which no weight of 0 would cancel
                    seen = live.any(dim=0)[:, None]
                    selected_k, selected_v = selected_k.where(seen, 0), selected_v.where(seen, 0)
                state = state.step(queries, selected_k, selected_v, live)
            out[:, heads, rows] = state.output().to(out.dtype)
            lse[:, heads, rows] = state.log_sum_exp().to(lse.dtype)


@dataclass(frozen=True, slots=True)
class _State:
    """Online soft-max (Milakov and Gimelshein 2018): running maximum, sum and weighted values of each row."""

    maximum: Tensor
    total: Tensor
    values: Tensor

    @staticmethod
    def start(queries: Tensor, value_dim: int) -> _State:
        shape = queries.shape[:3]
        return _State(
            queries.new_full(shape, -math.inf), queries.new_zeros(shape), queries.new_zeros((*shape, value_dim))
        )

    def step(self, queries: Tensor, keys: Tensor, values: Tensor, live: Tensor | None) -> _State:
        scores = queries @ keys.transpose(-1, -2)
        if live is not None:
            scores = scores.masked_fill(~live, -math.inf)
        maximum = torch.maximum(self.maximum, scores.amax(dim=-1))
        base = maximum.masked_fill(maximum == -math.inf, 0)
        weights = torch.exp(scores - base[..., None])
        kept = torch.exp(self.maximum - base)
        return _State(
            maximum,
            self.total * kept + weights.sum(dim=-1),
            self.values * kept[..., None] + weights @ values,
        )

    def output(self) -> Tensor:
        return self.values / self.total.masked_fill(self.total == 0, 1)[..., None]

    def log_sum_exp(self) -> Tensor:
        return self.maximum + torch.log(self.total)


def _alike(head_class: HeadClass) -> list[tuple[dict[str, int], list[int]]]:
    """The class's heads, grouped by their constants."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for n, head in enumerate(head_class.heads):
        groups.setdefault(tuple(values[n] for _, values in head_class.constants), []).append(head)
    names = [name for name, _ in head_class.constants]
    return [(dict(zip(names, values, strict=True)), heads) for values, heads in groups.items()]


def _chunks(
    head_class: HeadClass, constants: Mapping[str, int], rows: tuple[int, int], n_keys: int, device: torch.device
) -> list[tuple[Tensor, Tensor | None]]:
    """The keys to attend to, in chunks, each with the mask [rows, keys] that it needs (None: all live)."""
    program = head_class.program
    offsets = torch.arange(program.key_tile, device=device)
    per_chunk = max(CHUNK_KEYS // program.key_tile, 1)
    visited = visits(program, constants, rows, n_keys)
    found: list[tuple[Tensor, Tensor | None]] = []
    for full in (True, False):
        tiles = [visit.tile for visit in visited if visit.full == full]
        for start in range(0, len(tiles), per_chunk):
            part = tiles[start : start + per_chunk]
            keys = (torch.tensor(part, device=device)[:, None] * program.key_tile + offsets).flatten()
            if full:
                found.append((keys, None))
                continue
            inside = keys < n_keys
            keys = keys[inside]
            found.append((keys, _live(head_class, constants, rows, part, keys, n_keys)))
    return found


def _live(
    head_class: HeadClass,
    constants: Mapping[str, int],
    rows: tuple[int, int],
    tiles: list[int],
    keys: Tensor,
    n_keys: int,
) -> Tensor:
    """The set's predicate on rows x keys, bool."""
    program = head_class.program
    values: dict[str, int | Tensor] = {**constants, "nk": n_keys, "j": keys[None, :]}
    values["i"] = torch.arange(*rows, device=keys.device)[:, None]
    drawn = [draws(spec, constants[spec.lane_row], rows[0] // spec.block) for spec in program.lists]
    at_tile = {tile: listed_at(program, drawn, tile) for tile in tiles} if drawn else {}
    listed = {
        n: torch.tensor([at_tile[int(tile)][n] for tile in keys // program.key_tile], device=keys.device)[None, :]
        for n in range(len(drawn))
    }
    live = truth(program.live, values, listed)
    shape = (rows[1] - rows[0], len(keys))
    return live.expand(shape) if isinstance(live, Tensor) else torch.full(shape, live, device=keys.device)


def value(expr: x.Expr, values: Mapping[str, int | Tensor], listed: Mapping[int, Tensor]) -> int | Tensor:
    """`ir.expr.evaluate` over broadcasting int64 tensors."""

    def of(e: x.Expr) -> int | Tensor:
        return value(e, values, listed)

    match expr:
        case x.Int(number):
            return number
        case x.Var(name):
            return values[name]
        case x.Add(a, b):
            return of(a) + of(b)
        case x.Sub(a, b):
            return of(a) - of(b)
        case x.Mul(a, b):
            return of(a) * of(b)
        case x.FloorDiv(a, b, _):
            return of(a) // of(b)
        case x.Mod(a, b, _):
            return of(a) % of(b)
        case x.Min(a, b) | x.Max(a, b):
            left, right = torch.as_tensor(of(a)), torch.as_tensor(of(b))
            return torch.minimum(left, right) if isinstance(expr, x.Min) else torch.maximum(left, right)
        case x.Select(c, a, b):
            return torch.where(torch.as_tensor(truth(c, values, listed)), of(a), of(b))


def truth(test: x.Bool, values: Mapping[str, int | Tensor], listed: Mapping[int, Tensor]) -> bool | Tensor:
    """`ir.expr.holds` over broadcasting tensors."""
    match test:
        case x.Truth(known):
            return known
        case x.Less(a, b):
            return value(a, values, listed) < value(b, values, listed)
        case x.And(a, b):
            return truth(a, values, listed) & truth(b, values, listed)
        case x.Or(a, b):
            return truth(a, values, listed) | truth(b, values, listed)
        case x.Not(a):
            return torch.logical_not(torch.as_tensor(truth(a, values, listed)))
        case x.Listed(ordinal):
            return listed[ordinal]
