"""Head classes and KV groups -> what emitters print and launches pass alike: tables, packs and spans of heads.

Invariant: the rows of a table stand in the order of the class's heads, and its columns in that of the constants.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sparsec.plan.kernel import HeadClass
from sparsec.plan.kv.cached import GroupClass

Table = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class HeadPack:
    """Query heads of one class and one KV group with the same constants; `row`: the group, then the constants."""

    row: tuple[int, ...]
    heads: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PackTable:
    """Packs of heads, as many heads at a time as fit into a program's rows.

    `table` has a row a pack: the KV group, then the constants. `members`: as many heads each, -1 for none.
    """

    table: Table
    members: Table


@dataclass(frozen=True, slots=True)
class ColumnChunk:
    """Columns first .. first + width - 1 of a row; `cut` if some lie beyond its last."""

    index: int
    first: int
    width: int
    cut: bool


def head_table(head_class: HeadClass) -> Table:
    """One row a head of the class: the head, then its constants in order."""
    return tuple((head, *(values[n] for _, values in head_class.constants)) for n, head in enumerate(head_class.heads))


def group_table(store: tuple[GroupClass, ...]) -> Table:
    """One row a KV group, in order: its kind, then that kind's constants, then zeros."""
    width = max(len(group_class.constants) for group_class in store)
    rows = {
        group: (kind, *(values[n] for _, values in group_class.constants), *[0] * (width - len(group_class.constants)))
        for kind, group_class in enumerate(store)
        for n, group in enumerate(group_class.groups)
    }
    return tuple(rows[group] for group in sorted(rows))


def class_of_member(classes: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Of each head, or each group, the class that has it among its members."""
    class_of = {member: n for n, members in enumerate(classes) for member in members}
    return tuple(class_of[member] for member in range(len(class_of)))


def by_member(members: tuple[int, ...], values: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The members' values as one for each of `count` heads or groups, 0 where there is none."""
    of_member = dict(zip(members, values, strict=True))
    return tuple(of_member.get(n, 0) for n in range(count))


def packs(table: Table, share: int) -> tuple[HeadPack, ...]:
    """The heads of a class's table, packed, in the order of their first heads; a KV group has `share` heads."""
    found: dict[tuple[int, ...], list[int]] = {}
    for head, *constants in table:
        found.setdefault((head // share, *constants), []).append(head)
    return tuple(HeadPack(row, tuple(heads)) for row, heads in found.items())


@lru_cache(maxsize=256)
def pack_table(table: Table, share: int, most: int) -> PackTable:
    """The packs of a class, of at most `most` heads each."""
    found = packs(table, share)
    width = min(most, max(len(pack.heads) for pack in found))
    rows, members = [], []
    for pack in found:
        for first in range(0, len(pack.heads), width):
            part = pack.heads[first : first + width]
            rows.append(pack.row)
            members.append((*part, *[-1] * (width - len(part))))
    return PackTable(tuple(rows), tuple(members))


def group_spans(heads: Sequence[int], share: int) -> tuple[tuple[int, int, int], ...]:
    """The KV groups of a class's heads: (group, its first row in the head table, number of its heads in the class)."""
    groups = [head // share for head in heads]
    assert groups == sorted(groups), "the heads of a class ascend"
    return tuple((group, groups.index(group), groups.count(group)) for group in dict.fromkeys(groups))


def share_a_group(classes: Iterable[Sequence[int]], share: int) -> bool:
    """Whether the heads of some KV group lie in several classes."""
    groups = [group for heads in classes for group in {head // share for head in heads}]
    return len(groups) > len(set(groups))


def column_chunks(columns: int) -> tuple[ColumnChunk, ...]:
    """Powers of two that cover the columns with little waste: 96 = 64 + 32; the narrowest, 16, may reach beyond."""
    chunks: list[ColumnChunk] = []
    first = 0
    while first < columns:
        left = columns - first
        width = max(16, 1 << (left.bit_length() - 1))
        chunks.append(ColumnChunk(len(chunks), first, width, first + width > columns))
        first += width
    return tuple(chunks)


def source_chunks(head_dim: int, value_dim: int) -> dict[str, tuple[ColumnChunk, ...]]:
    """The chunks of what kernels read tile by tile, by name: rows of queries and keys, and rows of values' width."""
    of_keys, of_values = column_chunks(head_dim), column_chunks(value_dim)
    return {"queries": of_keys, "keys": of_keys, "values": of_values, "gradients": of_values}
