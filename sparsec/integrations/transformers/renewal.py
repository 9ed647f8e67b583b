"""The attention of new tokens -> which keys are frequent from then on: those with the most, since the prompt began.

Invariant: beside the latest keys, a group has no more frequent ones than its file says; a key that no longer is one
never is again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.ir.bands.kept import KeptMarks
from sparsec.ir.bands.liveness import Region
from sparsec.runtime.inputs.checks import InputTensors
from sparsec.runtime.kernel import registered
from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.kv.lists import unmark

DEAD_SHARE, DEAD_MOST = 8, 16
"""A list may have an 8th of its keys, and 16, unmarked before their memory is given back."""


@dataclass(slots=True)
class Renewal:
    """Of one cache. most: of an input how many keys it marks. groups: the KV groups that ask any. latest: int64 [G],
    how many of the latest keys each group sees whether they are marked or not. sums: float32 [B, G, keys], the mass
    of each key. there: bool [B, G, keys], of an input what it marks, in `groups`. lengths: the tokens of each sequence
    at the last call. dead: the keys that have lost a mark of an input
    since their memory was last given back, of any list the most."""

    most: Mapping[str, int]
    groups: tuple[int, ...]
    latest: Tensor
    sums: Tensor
    there: dict[str, Tensor]
    lengths: tuple[int, ...]
    dead: dict[str, int] = field(default_factory=dict)

    @torch.compiler.disable(reason="lengths are read on the host")  # type: ignore[no-untyped-call, untyped-decorator]
    def renew(self, kv: KVCache, mass: Tensor, inputs: Mapping[str, InputTensors]) -> None:
        """After a call that brought `mass` [B, heads, keys] and whose `inputs` say what new tokens may be."""
        keys, batch = mass.shape[2], self.sums.shape[0]
        self._widen(keys)
        self.sums[..., :keys] += mass.view(batch, self.sums.shape[1], -1, keys).sum(2)
        lengths = torch.tensor(kv.lengths, device=mass.device)
        position = torch.arange(keys, device=mass.device)
        protected = position + self.latest[:, None] > lengths[:, None, None]
        for name, count in self.most.items():
            there, new = self.there[name], inputs[name]
            assert isinstance(new, Tensor)
            self._append(there, new, kv.lengths)
            dropped = least(self.sums[..., :keys], there[..., :keys], count) & ~protected
            if bool(dropped.any()):
                there[..., :keys] &= ~dropped
                self._take_away(kv, name, dropped)
        self.lengths = kv.lengths

    def _append(self, there: Tensor, new: Tensor, lengths: tuple[int, ...]) -> None:
        """Marks of a call's N keys, bool [B or 1, N], of which the last ones are new."""
        for b, (before, length) in enumerate(zip(self.lengths, lengths, strict=True)):
            if before < length:
                there[b, self.groups, before:length] = new[b if len(new) > 1 else 0, before - length :]

    def _take_away(self, kv: KVCache, name: str, dropped: Tensor) -> None:
        kept = kv.kept
        assert kept is not None, "a prompt has ended"
        declared = registered(kv.kernel, kv.keys.device).launch.declared
        number = next(n for n, each in enumerate(declared) if each.name == name)
        unmark(kept, kept.of.ordinals.index(number), dropped)
        self.dead[name] = self.dead.get(name, 0) + int(dropped.sum(-1).max())
        if self.dead[name] > DEAD_MOST + self.most[name] // DEAD_SHARE:
            self.dead[name] = 0
            kv.keep(name, self.there[name][..., : kv.length])

    def _widen(self, keys: int) -> None:
        """Room for at least so many keys."""
        more = keys - self.sums.shape[2]
        if more > 0:
            more += keys // DEAD_SHARE
            self.sums = torch.nn.functional.pad(self.sums, (0, more))
            self.there = {name: torch.nn.functional.pad(each, (0, more)) for name, each in self.there.items()}

    def reorder(self, rows: Tensor) -> None:
        self.lengths = tuple(self.lengths[row] for row in rows.tolist())
        rows = rows.to(self.sums.device)
        self.sums = self.sums[rows]
        self.there = {name: each[rows] for name, each in self.there.items()}

    def crop(self, lengths: tuple[int, ...]) -> None:
        """Forgets the keys from lengths[b] on; what their queries have taken away and added stays so."""
        self.lengths = lengths
        for b, length in enumerate(lengths):
            self.sums[b, :, length:] = 0
            for each in self.there.values():
                each[b, :, length:] = False


def least(sums: Tensor, there: Tensor, count: int) -> Tensor:
    """bool [B, G, N]: of the keys that are `there` those that are not among the `count` with the greatest sums."""
    over = there.sum(-1, keepdim=True) - count
    most = max(int(over.max()), 0)
    lowest = sums.masked_fill(~there, torch.inf).topk(most, dim=-1, largest=False).indices
    excess = torch.arange(most, device=sums.device) < over
    return torch.zeros_like(there).scatter_(-1, lowest, excess)


def begun(kv: KVCache, most: Mapping[str, int], mass: Tensor, marks: Mapping[str, Tensor]) -> Renewal | None:
    """At the end of a prompt whose keys have `mass` [B, heads, keys], and for each input of `most` `marks` [B, G,
    keys]. None where the kernels give no mass, or no group asks."""
    loaded = registered(kv.kernel, kv.keys.device)
    if not loaded.keeps or not loaded.kept.weighs:
        return None
    of = loaded.kept.plan.kept
    assert of is not None, "kernels over lists say what these have"
    numbers = [n for n, each in enumerate(loaded.launch.declared) if each.name in most]
    groups = tuple(g for g in range(len(of.needs)) if any(_asks(of, of.ordinals.index(n), g) for n in numbers))
    batch, _, keys = mass.shape
    sums = mass.view(batch, len(of.needs), -1, keys).clamp(min=0).sum(2)
    latest = torch.tensor([max(map(_reach, regions), default=0) for regions in kv.layout.groups], device=mass.device)
    asking = torch.tensor([group in groups for group in range(len(of.needs))], device=mass.device)
    there = {name: marks[name] & asking[:, None] for name in most}
    return Renewal(most, groups, latest, sums, there, kv.lengths) if groups else None


def _asks(of: KeptMarks, n: int, group: int) -> bool:
    return bool(of.wanted(group) >> n * of.share & (1 << of.share) - 1)


def _reach(region: Region) -> int:
    """How many of the latest keys are in a region of a cache that has others in lists."""
    if region.stop is not None or region.residue is not None:
        return 0
    return POSITION_LIMIT if region.reach is None else region.reach
