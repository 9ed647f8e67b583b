"""A density, or a count, and a seed -> contents of run-time inputs as a selector would give them.

Invariant: shapes and numbers are right; the same contents, of the same call, give the same tensors. Lists, labels and
marks of one sequence serve all, and heads of one KV group share theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError
from sparsec.reference.parts import InputTensors
from sparsec.sema.model import InputDecl, InputKind, InputUnit
from sparsec.sema.shapes import Sizes, tile_columns, tile_rows

DENSITY = 0.05
"""Where nothing is said."""
LARGEST = 1 << 27
"""Entries of one input: what a machine holds beside q, k and v."""
DRAFTS = 64


@dataclass(frozen=True, slots=True)
class Contents:
    """Of each input, its share of what it may name; or `count` of them: entries of a list, tiles of a row of tiles.

    `rows` list keys (or blocks) up to the query's own. Of `tokens` and `blocks` each mark is drawn by itself.
    """

    density: float = DENSITY
    count: int | None = None
    seed: int = 0

    def __str__(self) -> str:
        amount = f"density={self.density:g}" if self.count is None else f"count={self.count}"
        return f"random:{amount},seed={self.seed}"

    def drawn(
        self, decl: InputDecl, sizes: Sizes, block: int, device: torch.device | str = "cpu", *, ahead: bool = False
    ) -> InputTensors:
        """The tensors of a settled input, for a call of known sizes. `ahead`: rows may list keys past their query.

        Raises CallError where they would be too large.
        """
        of_input = self.seed * 1_000_003 + decl.line * 1009 + decl.column
        draw = _Draw(self, sizes, block, torch.Generator(device).manual_seed(of_input % 2**63), ahead)
        return draw.of(decl)


@dataclass(frozen=True, slots=True)
class _Draw:
    """One source of numbers for the tensors of an input."""

    contents: Contents
    sizes: Sizes
    block: int
    generator: torch.Generator
    ahead: bool

    def of(self, decl: InputDecl) -> InputTensors:
        sizes, groups = self.sizes, self.sizes.kv_heads
        n_k = sizes.new_keys if sizes.n_k is None else sizes.n_k
        unit = self.block if decl.unit is InputUnit.BLOCKS else 1
        keys, start = -(-n_k // unit), sizes.q_offset or 0
        match decl.kind:
            case InputKind.LENGTH:
                return torch.tensor([self.amount(n_k)], dtype=torch.int32, device=self.generator.device)
            case InputKind.TOKENS:
                return self.marks(decl, 1, groups, sizes.new_keys)
            case InputKind.COLUMNS:
                return self.lists(decl, torch.full((1, groups), keys))
            case InputKind.SLASHES:
                distances = -(-(start + sizes.n_q) // unit)
                if decl.unit is InputUnit.TILES:  # of whole blocks, as the selectors list them
                    blocks = self.lists(decl, torch.full((1, groups), -(-distances // self.block)))
                    return torch.where(blocks < 0, -1, blocks * self.block)
                return self.lists(decl, torch.full((1, groups), distances))
            case InputKind.ROWS:
                ends = torch.arange(start, start + sizes.n_q) // unit + 1
                ends = torch.full_like(ends, keys) if self.ahead else ends.clamp(max=keys)
                return self.lists(decl, ends.expand(1, groups, -1))
            case InputKind.BLOCKS:
                return self.marks(decl, 1, groups, tile_rows(decl, sizes), tile_columns(decl, sizes))
            case InputKind.LABELS:
                labels = round(1 / max(self.share(n_k), 2**-30))
                return self.integers(decl, labels, sizes.n_q), self.integers(decl, labels, sizes.new_keys)
            case InputKind.TREE:
                drafts = torch.arange(min(DRAFTS, sizes.n_q, n_k), device=self.generator.device)
                chosen = self.uniform(decl, 1, len(drafts)) * (drafts + 1)
                return chosen.to(torch.int32).minimum(drafts.to(torch.int32)) - 1
            case InputKind.WEIGHTS:
                self.check(decl, groups, sizes.new_keys)
                device = self.generator.device
                return torch.randn((1, groups, sizes.new_keys), generator=self.generator, device=device)
            case _:
                assert_never(decl.kind)

    def amount(self, of: int) -> int:
        return round(self.contents.density * of) if self.contents.count is None else min(self.contents.count, of)

    def share(self, of: int) -> float:
        return self.contents.density if self.contents.count is None else min(self.contents.count / max(of, 1), 1.0)

    def marks(self, decl: InputDecl, *shape: int) -> Tensor:
        return self.uniform(decl, *shape) < self.share(shape[-1])

    def integers(self, decl: InputDecl, end: int, length: int) -> Tensor:
        self.check(decl, self.sizes.kv_heads, length)
        shape, device = (1, self.sizes.kv_heads, length), self.generator.device
        return torch.randint(0, end, shape, generator=self.generator, device=device, dtype=torch.int32)

    def lists(self, decl: InputDecl, ends: Tensor) -> Tensor:
        """int32 [*ends.shape, c]: of the numbers below each end as many as the contents say, then -1.

        The numbers are cut into as many equal parts, and one is drawn of each.
        """
        ends = ends.to(self.generator.device, torch.int64)[..., None]
        if self.contents.count is None:
            counts = (self.contents.density * ends.double()).round().to(torch.int64)
        else:
            counts = ends.clamp(max=self.contents.count)
        longest = self.amount(int(ends.max())) if ends.numel() else 0
        drawn = self.uniform(decl, *ends.shape[:-1], longest)
        place = torch.arange(longest, device=ends.device)
        parts = counts.clamp(min=1)
        first = place * ends // parts
        width = (place + 1) * ends // parts - first
        entries = first + (drawn * width).to(torch.int64).minimum(width - 1)
        return torch.where(place < counts, entries, -1).to(torch.int32)

    def uniform(self, decl: InputDecl, *shape: int) -> Tensor:
        self.check(decl, *shape)
        return torch.rand(shape, generator=self.generator, device=self.generator.device)

    def check(self, decl: InputDecl, *shape: int) -> None:
        if (entries := torch.Size(shape).numel()) > LARGEST:
            raise CallError(
                f"expected at most {LARGEST} random entries of input {decl.name!r}, got {entries}: fewer tokens, or a "
                "lower density or count, need fewer"
            )
