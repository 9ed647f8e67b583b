"""Token ids, and the attention of a prompt -> the marks of a pattern's inputs that a file says how to make.

A file gives input `x` of kind `tokens` a list of token ids as `param x_ids`, or a number of keys as `param x_keys`.
Invariant: until the prompt in a cache ends, each of its keys is marked; from then on the marks are those of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError
from sparsec.integrations.transformers.renewal import Renewal, begun
from sparsec.program import Program
from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.module import SparseAttention
from sparsec.sema.arguments import Given
from sparsec.sema.model import InputDecl, InputKind
from sparsec.sema.resolution.values import RangeValue, Value

IDS, KEYS = "_ids", "_keys"


@dataclass(frozen=True, slots=True)
class Marks:
    """ids: of an input the ids of the tokens that it marks. most: of an input how many keys of a prompt it marks, those
    with the most attention, added up over the prompt, of the keys that no ids mark."""

    ids: Mapping[str, tuple[int, ...]]
    most: Mapping[str, int]

    def made(self, declared: tuple[InputDecl, ...]) -> tuple[str, ...]:
        """The inputs of a pattern that these are the marks of."""
        known = {*self.ids, *self.most}
        return tuple(each.name for each in declared if each.kind is InputKind.TOKENS and each.name in known)

    def of_call(self, tokens: Tensor | None, *, prompt: bool, cached: bool) -> CallMarks:
        """For a call of `tokens`, ids [B, N] or None; `prompt`: no tokens come before them. Raises CallError."""
        if not cached:
            return CallMarks(self, {}, everything=True)
        if tokens is None:
            raise CallError("expected input_ids, which say what the pattern's inputs mark, got none")
        by_ids = {name: of_ids(tokens, ids) for name, ids in self.ids.items()}
        return CallMarks(self, by_ids, everything=prompt)


@dataclass(frozen=True, slots=True)
class CallMarks:
    """Of one call. by_ids: bool [B, N], which of its tokens have the ids of an input; empty without a cache.
    everything: whether each key is marked, in a prompt and without a cache."""

    marks: Marks
    by_ids: Mapping[str, Tensor]
    everything: bool

    def of_keys(self, names: tuple[str, ...], k: Tensor, *, renewed: bool = False) -> dict[str, Tensor]:
        """The marks of the keys [B, G, N, D] of the call, bool [B or 1, N] each. `renewed`: whether those with the most
        attention are found anew after each call; then each key that no ids mark may be one of them."""
        new = k.shape[2]
        if self.everything:
            return {name: torch.ones((1, new), dtype=torch.bool, device=k.device) for name in names}
        listed = torch.zeros((1, new), dtype=torch.bool, device=k.device)
        ids = {name: mark.to(k.device) for name, mark in self.by_ids.items()}
        if renewed:
            for each in ids.values():
                listed = listed | each
        return {name: ids.get(name, ~listed if renewed else listed) for name in names}

    @torch.compiler.disable(reason="lengths are read on the host")  # type: ignore[no-untyped-call, untyped-decorator]
    def end_prompt(
        self, names: tuple[str, ...], attn: SparseAttention, kv: KVCache, q: Tensor, k: Tensor, v: Tensor
    ) -> Renewal | None:
        """Takes the marks of the prompt in `kv` away where the file's are none, and keys that nothing needs any more.
        Returns what finds those with the most attention anew, where there are such and the backend can.

        q, k and v are of the prompt, whose last kv.lengths[b] columns are row b's tokens; q may have the last ones
        alone.
        """
        lengths = kv.lengths
        ids = {name: from_first(mark, lengths).to(k.device) for name, mark in self.by_ids.items()}
        most = [name for name in names if name in self.marks.most]
        if most:
            listed = torch.zeros((k.shape[0], max(lengths)), dtype=torch.bool, device=k.device)
            for each in ids.values():
                listed |= each
            mass = _mass(attn, names, q, k, v, lengths)
        marks = {name: ids[name][:, None] for name in names if name in ids}
        marks |= {name: most_attended(mass, listed, k.shape[1], self.marks.most[name]) for name in most}
        for name in names:
            kv.keep(name, marks[name])
        return begun(kv, {name: self.marks.most[name] for name in most}, mass, marks) if most else None


def marks_of(program: Program, params: Mapping[str, Given]) -> Marks:
    """What the parameters of a file say, with `params` in place of defaults."""
    ids: dict[str, tuple[int, ...]] = {}
    most: dict[str, int] = {}
    for name, value in program.parameters(params).items():
        match value:
            case tuple() if name.endswith(IDS):
                ids[name.removesuffix(IDS)] = _listed(value)
            case int() if name.endswith(KEYS) and not isinstance(value, bool):
                most[name.removesuffix(KEYS)] = value
    return Marks(ids, most)


def _listed(value: tuple[Value | float, ...]) -> tuple[int, ...]:
    """The numbers of a list; those that are no ids are left out."""
    found: list[int] = []
    for item in value:
        match item:
            case RangeValue(int(start), int(stop)):
                found += range(start, stop)
            case int():
                found.append(item)
    return tuple(found)


def of_ids(tokens: Tensor, ids: tuple[int, ...]) -> Tensor:
    """bool, like `tokens`: which are among the ids."""
    return torch.isin(tokens, torch.tensor(ids, dtype=torch.int64, device=tokens.device))


def most_attended(mass: Tensor, listed: Tensor, groups: int, count: int) -> Tensor:
    """bool [B, groups, N]: for each KV group the `count` keys with the most mass [B, heads, N] that are not `listed`
    [B, N]; all of these if they are fewer."""
    of_groups = mass.reshape(mass.shape[0], groups, -1, mass.shape[2]).sum(2).masked_fill(listed[:, None], -1)
    most = of_groups.topk(min(count, of_groups.shape[2]), dim=2)
    return torch.zeros_like(of_groups, dtype=torch.bool).scatter_(2, most.indices, most.values >= 0)


def from_first(columns: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Of [B, N], whose last lengths[b] columns are row b's, the same from column 0 on: [B, max(lengths)]; 0 behind."""
    new, longest = columns.shape[1], max(lengths)
    counts = torch.tensor(lengths, device=columns.device)[:, None]
    place = torch.arange(longest, device=columns.device)
    moved = columns.gather(1, (place + new - counts).clamp(max=new - 1))
    return torch.where(place < counts, moved, 0).to(columns.dtype)


def _mass(
    attn: SparseAttention, names: tuple[str, ...], q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...]
) -> Tensor:
    """float32 [B, heads, max(lengths)]: the mass of each row's keys with everything marked, by position; -1 behind."""
    new = k.shape[2]
    mass = q.new_full((k.shape[0], q.shape[1], max(lengths)), -1, dtype=torch.float32)
    for length in sorted(set(lengths) - {0}):
        rows = [row for row, each in enumerate(lengths) if each == length]
        everything = torch.ones((1, length), dtype=torch.bool, device=k.device)
        parts = (q[rows, :, -min(length, q.shape[2]) :], k[rows, :, new - length :], v[rows, :, new - length :])
        _, of_rows = attn(*parts, inputs=dict.fromkeys(names, everything), return_mass=True)
        mass[rows, :, :length] = of_rows
    return mass
