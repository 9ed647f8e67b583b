"""Lists of kept keys: of each sequence and KV group the marked keys, one after another, with their positions and marks.

Invariant: a list's entries come in the order of their positions, each position once; a marked key that a later query
may see is in the list of its group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError
from sparsec.ir.bands.kept import WORD, KeptMarks
from sparsec.runtime.kv.arena import arena

PAD = 16
"""Entries past the last list: a kernel may read so far, and torch writes there what has no place."""
BASE, CAPACITY, COUNT = range(3)
"""Columns of `lists`."""
NEWEST, KEPT_AT, DROPPED_AT, BY_HEAD = range(4)
"""Rows of `record`."""


@dataclass(slots=True, eq=False)
class KeptLists:
    """All lists of a cache; its tensors are those of `names`, contiguous.

    keys [entries + PAD, D], values [entries + PAD, Dv]. entries: int32 [1 + words, entries + PAD], each entry's
    position, then its marks (see `of`). lists: int32 [B, G, 3], of each list its first entry, the entries that it has
    room for, and those that it has. record: int64 [4, B] on the CPU, of each sequence: the most tokens that it had had
    before keys were dropped for the first time, the tokens that it had then (or since, after truncation), those that it
    had when keys were last merged, or dropped for being too far back; and whether heads of a group differ in their
    marks.
    `new`: of the call at hand, what the inputs of `of.ordinals` say of its keys, bool [b, x, N]; `sure`: whether each
    list surely has room for those of them that are marked; `spare`: for how many keys of later calls each list surely
    has room, as far as the host knows.
    """

    of: KeptMarks
    keys: Tensor
    values: Tensor
    entries: Tensor
    lists: Tensor
    record: Tensor
    new: tuple[Tensor, ...] = field(init=False, default=())
    sure: bool = field(init=False, default=False)
    spare: int = field(init=False, default=0)
    by_head: bool = field(init=False)
    """Whether heads of a group differ in their marks."""

    def __post_init__(self) -> None:
        self.by_head = bool(self.record[BY_HEAD].any())

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in names}

    def having(self, tensors: Mapping[str, Tensor]) -> KeptLists:
        return KeptLists(self.of, *(tensors[name] for name in names))

    @property
    def nbytes(self) -> int:
        """Of all that grows with the keys."""
        return self.keys.nbytes + self.values.nbytes + self.entries.nbytes

    def take(self, marks: tuple[Tensor, ...]) -> None:
        """Before a call whose inputs say `marks` of its keys."""
        self.new = tuple(mark if mark.dim() == 3 else mark[:, None] for mark in marks)
        if not self.by_head and any(mark.shape[1] not in (1, self.lists.shape[1]) for mark in self.new):
            self.by_head = True
            self.record[BY_HEAD] = 1


names = ("keys", "values", "entries", "lists", "record")


def words_of(marks: tuple[Tensor, ...], share: int, groups: int) -> Tensor:
    """int64 [B, G, N, words] of the marks, bool [b, x, N], of each input; a word is below 2**32."""
    batch, length = max(mark.shape[0] for mark in marks), marks[0].shape[-1]
    heads = groups * share
    spread = [mark.repeat_interleave(heads // mark.shape[1], 1).expand(batch, -1, -1) for mark in marks]
    bits = torch.stack([each.reshape(batch, groups, share, length) for each in spread], 2).flatten(2, 3)
    parts = []
    for part in torch.split(bits, WORD, dim=2):
        weight = torch.tensor([1 << n for n in range(part.shape[2])], device=part.device)
        parts.append((part.to(torch.int64) * weight[:, None]).sum(2))
    return torch.stack(parts, -1)


def signed(words: Tensor) -> Tensor:
    """int32 with the bits of numbers below 2**32."""
    return torch.where(words >= 1 << WORD - 1, words - (1 << WORD), words).to(torch.int32)


def has_any(words: Tensor, bits: int) -> Tensor:
    """Whether each [..., words] has one of the bits."""
    masks = [bits >> WORD * n & (1 << WORD) - 1 for n in range(words.shape[-1])]
    return ((words & torch.tensor(masks, device=words.device)) != 0).any(-1)


def append(kept: KeptLists, k: Tensor, v: Tensor, lengths: Tensor, counts: Tensor) -> None:
    """Adds those of the last counts[b] keys of a call that are marked; there must be room for them."""
    of, groups = kept.of, k.shape[1]
    batch, _, new, _ = k.shape
    words = words_of(kept.new, of.share, groups).expand(batch, -1, -1, -1)
    row = torch.arange(new, device=k.device) - (new - counts.to(k.device))[:, None]
    wanted = torch.stack([has_any(words[:, g], of.wanted(g)) for g in range(groups)], 1) & (row >= 0)[:, None]
    place = wanted.cumsum(-1) - 1 + kept.lists[..., COUNT, None]
    wanted &= place < kept.lists[..., CAPACITY, None]
    entry = torch.where(wanted, place + kept.lists[..., BASE, None], len(kept.keys) - 1).flatten()
    kept.keys[entry] = k.flatten(0, 2)
    kept.values[entry] = v.flatten(0, 2)
    position = (row + lengths[:, None]).to(torch.int32)[:, None].expand(-1, groups, -1)
    kept.entries[0, entry] = position.flatten()
    kept.entries[1:, entry] = signed(words).flatten(0, 2).T
    kept.lists[..., COUNT] += wanted.sum(-1).to(torch.int32)


def unmark(kept: KeptLists, n: int, taken: Tensor) -> None:
    """Takes marks of the input `kept.of.ordinals[n]` away where `taken`, bool [B, G, positions], for all heads of a
    group; the keys stay in their lists."""
    owner, entry = _owners(kept.lists), _entries(kept.lists)
    position = kept.entries[0, entry].to(torch.int64)
    of_entry = taken.flatten(0, 1)[owner, position.clamp(max=taken.shape[-1] - 1)]
    gone = entry[of_entry & (position < taken.shape[-1])]
    bits = (1 << kept.of.share) - 1 << n * kept.of.share
    for word in range(kept.of.words):
        left = ~(bits >> WORD * word) & (1 << WORD) - 1
        kept.entries[1 + word, gone] &= signed(torch.tensor(left)).to(kept.entries.device)


def check_append(kept: KeptLists, new: int, counts: Tensor) -> None:
    """Raises CallError unless every list has room for the marked ones of the last counts[b] keys. It waits for the
    device."""
    groups, left = kept.lists.shape[1], []
    words = words_of(kept.new, kept.of.share, groups)
    live = torch.arange(new) >= new - counts.cpu()[:, None]
    for g in range(groups):
        more = (has_any(words[:, g], kept.of.wanted(g)).cpu() & live).sum(-1)
        left.append(list_room(kept.lists[:, g].cpu(), more))
    kept.spare = int(torch.stack(left).min())


def list_room(lists: Tensor, more: Tensor) -> Tensor:
    """What is left of the room of lists [B, 3] after `more` keys. Raises CallError where it is too little."""
    room = lists[:, CAPACITY] - lists[:, COUNT]
    if bool((more > room).any()):
        row = int((more > room).nonzero()[0])
        raise CallError(
            f"expected at most {int(room[row])} more marked keys in a list of kept ones, got {int(more[row])} in "
            f"sequence {row}; nothing was written; keep(room=n) makes room for n, keep() without it for any number"
        )
    return room - more


def settle(kept: KeptLists) -> None:
    """After replays of a CUDA graph. Raises CallError where marked keys found no room and are lost."""
    lists = kept.lists.to("cpu", torch.int64)
    room = lists[..., CAPACITY] - lists[..., COUNT]
    kept.spare = max(int(room.min()), 0)
    if bool((room < 0).any()):
        kept.lists[..., COUNT] = torch.minimum(kept.lists[..., COUNT], kept.lists[..., CAPACITY])
        row = int((room < 0).any(-1).nonzero()[0])
        raise CallError(
            f"expected at most as many more marked keys as keep(room=n) made room for, got {-int(room[row].min())} "
            f"beyond them in sequence {row}; these were dropped"
        )


def check_within(lists: Tensor, rows: int) -> None:
    """Raises CallError unless the lists lie within arenas of so many rows."""
    base, capacity, count = lists.to("cpu", torch.int64).unbind(-1)
    if bool((base < 0).any() or (count < 0).any() or (count > capacity).any() or (base + capacity > rows - PAD).any()):
        raise CallError(f"expected lists of kept keys within {rows - PAD} entries, got {lists.tolist()}")


def relaid(kept: KeptLists, capacity: Tensor) -> KeptLists:
    """The same lists with other room, int64 [B, G], no less than they have entries."""
    base = capacity.flatten().cumsum(0).reshape(capacity.shape) - capacity
    total = int(capacity.sum())
    device = kept.keys.device
    lists = torch.stack([base, capacity, kept.lists[..., COUNT].to("cpu", torch.int64)], -1).to(torch.int32).to(device)
    source, target = _entries(kept.lists), _entries(lists)
    found = room_for(kept.of, total, kept.keys, kept.values, lists, kept.record)
    found.keys[target] = kept.keys[source]
    found.values[target] = kept.values[source]
    found.entries[:, target] = kept.entries[:, source]
    return found


def room_for(of: KeptMarks, total: int, keys: Tensor, values: Tensor, lists: Tensor, record: Tensor) -> KeptLists:
    """Room for `total` entries like keys and values."""
    rows = total + PAD
    return KeptLists(
        of,
        arena((rows, keys.shape[-1]), keys.dtype, keys.device),
        arena((rows, values.shape[-1]), values.dtype, values.device),
        torch.zeros((1 + of.words, rows), dtype=torch.int32, device=keys.device),
        lists,
        record,
    )


def reordered(kept: KeptLists, rows: Tensor) -> KeptLists:
    """The lists of sequences `rows`."""
    there = rows.to(kept.lists.device)
    capacity = kept.lists[there][..., CAPACITY].to("cpu", torch.int64)
    base = capacity.flatten().cumsum(0).reshape(capacity.shape) - capacity
    lists = kept.lists[there].clone()
    lists[..., BASE] = base.to(torch.int32).to(lists.device)
    source, target = _entries(kept.lists[there]), _entries(lists)
    found = room_for(kept.of, int(capacity.sum()), kept.keys, kept.values, lists, kept.record[:, rows.cpu()])
    found.keys[target] = kept.keys[source]
    found.values[target] = kept.values[source]
    found.entries[:, target] = kept.entries[:, source]
    return found


def truncated(kept: KeptLists, lengths: Tensor) -> None:
    """Takes off the entries from lengths[b] on."""
    owner, entry = _owners(kept.lists), _entries(kept.lists)
    groups = kept.lists.shape[1]
    stays = kept.entries[0, entry] < lengths.to(kept.lists.device)[owner // groups]
    counts = torch.zeros(kept.lists.shape[:2], dtype=torch.int32, device=kept.lists.device).flatten()
    counts.index_add_(0, owner, stays.to(torch.int32))
    kept.lists[..., COUNT] = counts.view(kept.lists.shape[:2])
    for row in (KEPT_AT, DROPPED_AT):
        kept.record[row] = torch.minimum(kept.record[row], lengths.cpu())


def dense_words(kept: KeptLists, length: int) -> tuple[Tensor, Tensor]:
    """By position, [B, G, length]: the words of the keys in the lists, int64 with `words` at the end, and the entry of
    each, -1 where there is none."""
    owner, entry = _owners(kept.lists), _entries(kept.lists)
    batch, groups, _ = kept.lists.shape
    place = owner * length + kept.entries[0, entry]
    words = kept.keys.new_zeros((batch * groups * length, kept.of.words), dtype=torch.int64)
    words[place] = kept.entries[1:, entry].T.to(torch.int64) & (1 << WORD) - 1
    found = torch.full((batch * groups * length,), -1, dtype=torch.int64, device=kept.keys.device)
    found[place] = entry
    return words.view(batch, groups, length, kept.of.words), found.view(batch, groups, length)


def _owners(lists: Tensor) -> Tensor:
    """int64: of each entry of all lists in order, the number of its list."""
    counts = lists[..., COUNT].flatten().to(torch.int64)
    return torch.arange(len(counts), device=lists.device).repeat_interleave(counts)


def _entries(lists: Tensor) -> Tensor:
    """int64: the entries of all lists in order."""
    counts, owner = lists[..., COUNT].flatten().to(torch.int64), _owners(lists)
    first = counts.cumsum(0) - counts
    return torch.arange(len(owner), device=lists.device) - first[owner] + lists[..., BASE].flatten()[owner]
