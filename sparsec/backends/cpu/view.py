"""What the templates of templates/cpu print, for one kernel.

Invariant: a view holds integers, printed expressions, checked names, and origins reduced to harmless characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sparsec.backends.cpu.modifiers import ModifiersView


def initialiser(values: Iterable[object]) -> str:
    """`{0, 1, 1}`."""
    return f"{{{', '.join(map(str, values))}}}"


@dataclass(frozen=True, slots=True)
class LetView:
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class SegmentView:
    """A loop over tiles; `entry` and `when` are empty where it has none, `attend` is what it does with a tile.

    `asks`: `when` asks inputs of the tile. `after`: where the kernel says which tile comes next, the one after the last
    of the loop, -1 for none, and `ordinal` names the loop.
    """

    origin: str
    count: str
    entry: str
    tile: str
    when: str
    attend: str
    asks: bool = False
    after: str = ""
    ordinal: int = 0


@dataclass(frozen=True, slots=True)
class ListView:
    """List `ordinal` of a class is table `table` of the call; `block` is the query's block, `tile_block` the key's.

    `size`: tokens of a block.
    """

    ordinal: int
    table: str
    row: str
    width: int
    block: str
    tile_block: str
    size: int


@dataclass(frozen=True, slots=True)
class PickView:
    """Test `ordinal` of a class: an object of `type`, which reads lookup `lookup` of the call and the next one."""

    ordinal: int
    type: str
    lookup: int


@dataclass(frozen=True, slots=True)
class GatherView:
    """The keys that rows list themselves by test `pick` of a class, as far as `live`, a mask, holds; `kept`: those of
    the cache's list."""

    origin: str
    pick: int
    live: str
    kept: bool = False


@dataclass(frozen=True, slots=True)
class OwnKeysView:
    """What the gathers of a class read: `picks`, and of `draws` whether a key was drawn."""

    gathers: tuple[GatherView, ...]
    picks: tuple[PickView, ...]
    draws: tuple[ListView, ...]


@dataclass(frozen=True, slots=True)
class ColumnsView:
    """The keys that lookup `lookup` of the call and the next one list for all queries, as far as `live`, a mask, holds,
    which reads `picks` and `draws`. They lie from `start` to `stop`, or these are the query tiles of some of them;
    `lets` are what the two read."""

    origin: str
    lookup: int
    start: str
    stop: str
    live: str
    lets: tuple[LetView, ...]
    picks: tuple[PickView, ...]
    draws: tuple[ListView, ...]


@dataclass(frozen=True, slots=True)
class ConstantView:
    """`values`: an initialiser of one integer for each head or group."""

    name: str
    values: str


@dataclass(frozen=True, slots=True)
class ClassView:
    """`live`: a mask of the masked segments, empty without one. `picks`: what it and the segments ask inputs. `own`:
    the keys that rows list themselves. `columns`: those that an input lists for all of them. `kept`: those of the
    cache's list that are taken for a whole query tile."""

    origins: tuple[str, ...]
    constants: tuple[ConstantView, ...]
    lets: tuple[LetView, ...]
    lists: tuple[ListView, ...]
    tests: tuple[ListView, ...]
    picks: tuple[PickView, ...]
    live: str
    segments: tuple[SegmentView, ...]
    own: OwnKeysView
    columns: tuple[ColumnsView, ...] = ()
    kept: tuple[GatherView, ...] = ()


@dataclass(frozen=True, slots=True)
class SlotClassView:
    """Heads, or KV groups, that share `slot`, an expression in j, stop, `constants` and the bases and capacities of
    `regions`."""

    constants: tuple[ConstantView, ...]
    regions: tuple[int, ...]
    slot: str


@dataclass(frozen=True, slots=True)
class SlotsView:
    """Where keys lie in a cache: `class_of` initialises one class for each head or group; a group has `regions`."""

    regions: int
    class_of: str
    classes: tuple[SlotClassView, ...]


@dataclass(frozen=True, slots=True)
class KeptView:
    """Lists of kept keys: the words of an entry's marks, and how many inputs mark; `ranks` initialises the rank among
    these of each input, and `wanted` the words, of each group, with the marks for which a key is listed."""

    words: int
    inputs: int
    ranks: str
    wanted: str


@dataclass(frozen=True, slots=True)
class DeadView:
    """Which keys of pages are dead: conditions in j, end and stop, `class_of` initialises one for each KV group."""

    class_of: str
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CppView:
    """What the templates of templates/cpu print; initialisers and expressions are C++ text.

    `kv_dtype`: of the keys and values, `dtype` of all else. `transposed`: the classes are those of key tiles.
    `lane_tile` says which tile lies across vector lanes; `lane` and `other` are the variables of a mask that are a
    vector and a scalar. Over a cache, `slots` says where the heads' keys lie, `stored` where a group's new keys go, and
    `kept` what its lists of kept keys hold; over pages, `dead` says which keys are not loaded. `packs` are
    initialisers of (group, number of heads, heads), and `kinds` one of the kind of each, where packs of a kind
    stand side by side. `inputs`: the headers of what the classes ask inputs, which have `lookups`. `gathered`: the
    classes by which rows find the keys that they list themselves in functions of their own, if there are any; a
    head's class is that of `gathering_class_of_head`. `includes`, `guarded`, `structs` and `headers` stand before
    the classes: system headers, those under a condition, call structs, text of the kernels' own headers.
    """

    symbol: str
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    dtype: str
    kv_dtype: str
    query_tile: int
    key_tile: int
    lane_tile: str
    lists: int
    class_of_head: str
    classes: tuple[ClassView, ...]
    transposed: bool
    lane: str
    other: str
    modifiers: ModifiersView
    documents: str
    inputs: tuple[str, ...] = ("none",)
    lookups: int = 0
    gathered: tuple[ClassView, ...] = ()
    gathering_class_of_head: str = ""
    slots: SlotsView | None = None
    stored: SlotsView | None = None
    kept: KeptView | None = None
    dead: DeadView | None = None
    packs: tuple[str, ...] = ()
    kinds: str = ""
    includes: tuple[str, ...] = ()
    guarded: tuple[tuple[str, str], ...] = ()
    structs: tuple[str, ...] = ()
    headers: str = ""

    @property
    def columns(self) -> tuple[ColumnsView, ...]:
        """Those of all classes."""
        return tuple(gather for each in self.classes for gather in each.columns)
