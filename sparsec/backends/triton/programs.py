"""A head class -> how many programs each of its kernels has, as formulas, and the numbers and tables that they read.

Invariant: the formulas give what `call`, `cached` and `asking` launch, of the quantities of a LaunchRecord.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sparsec.ir.bands.band import Asks
from sparsec.ir.bands.kept import KeptMarks
from sparsec.plan.heads import Table
from sparsec.plan.launch import CachedLaunch, LaunchClass, LaunchPlan
from sparsec.plan.list_shapes import gather_rows, gather_shape
from sparsec.plan.target import STORE_ROWS, SUM_ROWS, decode_rows
from sparsec.sema.model import Documents

LISTED = "list_{}"
"""The kernel that finds the tiles of another one."""
GATHERED = "gather_{}"
"""The kernel that takes the lists of rows beside another one."""
KEPT = "kept_{}"
"""The kernel that takes the lists of kept keys beside another one."""


@dataclass(frozen=True, slots=True)
class Programs:
    """`numbers`: C expressions by the names of arguments."""

    programs: str
    numbers: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)


def of_queries(name: str, plan: LaunchPlan, of: LaunchClass) -> dict[str, Programs]:
    """By its name each kernel whose programs have query tiles."""
    first, last = f"q0 / {of.query_tile}", f"(q0 + nq - 1) / {of.query_tile}"
    tiles = f"{last} + 1 - {first}"
    numbers = {"first_tile": first, "tiles": tiles, "visits_row": f"{_up('nk', of.key_tile)} + 2"}
    programs = f"{_places(plan, of.query_tile, f'({tiles})')} * {len(of.table)}"
    spans = _alone(plan, of) if len(of.table[0]) > 1 else plan.spans(of)
    each = Programs(programs, numbers, {"table": of.table})
    rows = Programs(
        f"{_places(plan, 1, 'nq')} * {len(spans)}", {"slots_a_row": str(len(spans))}, {**each.tables, "spans": spans}
    )
    return {name: each, LISTED.format(name): each, GATHERED.format(name): rows}


def of_keys(name: str, plan: LaunchPlan, of: LaunchClass, target: str) -> dict[str, Programs]:
    """By its name each kernel whose programs have key tiles, of KV groups or, for a mass, of heads."""
    of_heads = name.startswith("key_mass")
    spans = _alone(plan, of) if of_heads else plan.spans(of)
    places = _places(plan, of.key_tile, _up("nk", of.key_tile))
    numbers = {"visits_row": f"{_up(f'nq + {of.query_tile}', of.query_tile)} + 2"}
    tables = {"table": of.table, "spans": spans}
    found = {
        name: Programs(f"{places} * {len(of.table) if of_heads else len(spans)}", numbers, tables),
        LISTED.format(name): Programs(f"{places} * {len(of.table)}", numbers, tables),
    }
    _, keys = gather_shape(target, plan.head_dim, plan.dtype)
    for g, test in enumerate(plan.inputs):
        if test.asks is Asks.ROW:
            parts = -(-test.width // min(keys, gather_rows(test.width)))
            count = _up("nk", test.width) if plan.documents is Documents.NONE else _places(plan, test.width, "")
            programs = f"{_places(plan, test.width, _up('nk', test.width))} * {parts * len(spans)}"
            own = {"slots_a_tile": str(len(spans)), "places": count}
            found[f"{GATHERED.format(name)}_{g}"] = Programs(programs, own, tables)
        if test in plan.columns:
            sequences = "batch" if plan.documents is Documents.NONE else "(1 + documents)"
            slots = len(of.table) if of_heads else len(spans)
            programs = f"{sequences} * {_up('columns', of.of_list.key_tile)} * {slots}"
            own = {**numbers, "sequences": sequences, "list_width": "columns"}
            found[f"{GATHERED.format(name)}_{g}"] = Programs(programs, own, tables)
    return found


def of_listed(plan: LaunchPlan, rows: int) -> Programs:
    """Of a kernel that copies the rows of listed keys, so many a program."""
    parts = _up("columns", rows)
    places = _places(plan, rows, "") if plan.documents is Documents.RESTART else f"batch * {parts}"
    return Programs(f"{places} * {plan.heads}", {"parts": parts})


def of_rows(heads: int) -> Programs:
    """Of `row_sums`."""
    return Programs(f"batch * {heads} * {_up('nq', SUM_ROWS)}", {"tiles": _up("nq", SUM_ROWS)})


def of_chunks(name: str, launch: CachedLaunch, of: LaunchClass, target: str) -> dict[str, Programs]:
    """Over a cache, those of chunks of queries."""
    tiles = _touched(of.query_tile)
    numbers, packed = {"tiles": tiles, "visits_row": _visited(of)}, _packed(launch, of, target)
    each = Programs(f"batch * ({tiles}) * {len(of.table)}", numbers, {"table": of.table})
    rows = Programs(f"batch * nq * {packed.numbers['packs']}", packed.numbers, packed.tables)
    most = decode_rows(target, launch.few.widest, launch.few.dtype) // int(packed.numbers["width"])
    kept = {**packed.numbers, "stretch": str(most)}
    return {
        name: each,
        LISTED.format(name): each,
        GATHERED.format(name): rows,
        KEPT.format(name): Programs(f"batch * {kept['packs']} * {_up('nq', most)}", kept, packed.tables),
    }


def of_masses(n: int, of: LaunchClass) -> dict[str, Programs]:
    """Over a cache, those of class n that add the mass of keys."""
    numbers = {"tiles": _touched(of.query_tile), "visits_row": _visited(of)}
    each = Programs(f"batch * {len(of.table)} * splits", numbers, {"table": of.table})
    name = f"mass_{n}"
    return dict.fromkeys((name, GATHERED.format(name), KEPT.format(name)), each)


def of_few(name: str, launch: CachedLaunch, of: LaunchClass, target: str) -> dict[str, Programs]:
    """Over a cache, those of few queries."""
    packed, tiles = _packed(launch, of, target), _touched(of.query_tile)
    packs = packed.numbers["packs"]
    numbers = {**packed.numbers, "tiles": tiles, "visits_row": _visited(of)}
    listed = {**packed.numbers, "splits": "listed", "before": "splits"}
    kept = {**packed.numbers, "splits": "kept", "before": "splits + listed", "stretch": "nq"}
    return {
        name: Programs(f"batch * ({tiles}) * {packs} * splits", numbers, packed.tables),
        LISTED.format(name): Programs(f"batch * ({tiles}) * {packs}", numbers, packed.tables),
        GATHERED.format(name): Programs(f"batch * nq * {packs} * listed", listed, packed.tables),
        KEPT.format(name): Programs(f"batch * {packs} * kept", kept, packed.tables),
    }


def of_caches(launch: CachedLaunch) -> dict[str, Programs]:
    """The kernels over a cache that all classes share."""
    plan, tiles = launch.chunks, _up("nq", STORE_ROWS)
    found = {
        "merge": Programs(f"batch * nq * {plan.heads}"),
        "store": Programs(f"batch * {tiles} * {plan.kv_heads}", {"tiles": tiles}, {"table": launch.store}),
    }
    if launch.kept is not None:
        found["append"] = Programs(f"batch * {plan.kv_heads}", tables={"wanted": wanted(launch.kept)})
    return found


def wanted(kept: KeptMarks) -> Table:
    """Of each KV group the words of marks that its lists take, as int32."""
    words = (kept.wanted_words(group) for group in range(len(kept.needs)))
    return tuple(tuple((word + 2**31) % 2**32 - 2**31 for word in each) for each in words)


def _packed(launch: CachedLaunch, of: LaunchClass, target: str) -> Programs:
    packs = launch.decode_packs(of, target, 1)
    numbers = {"packs": str(len(packs.members)), "width": str(len(packs.members[0]))}
    return Programs("", numbers, {"table": packs.table, "members": packs.members})


def _alone(plan: LaunchPlan, of: LaunchClass) -> Table:
    return tuple((head // plan.share, n, 1) for n, head in enumerate(of.heads))


def _places(plan: LaunchPlan, size: int, tiles: str) -> str:
    """The tiles of all sequences, of `tiles` each, or of all documents."""
    return f"batch * {tiles}" if plan.documents is Documents.NONE else f"({_up('nq', size)} + documents)"


def _up(number: str, size: int) -> str:
    return number if size == 1 else f"(({number} + {size - 1}) / {size})"


def _touched(size: int) -> str:
    """The most tiles that rows touch, as of `cached_entries.most_tiles`."""
    return f"(nq + {size - 2}) / {size} + 1"


def _visited(of: LaunchClass) -> str:
    return f"{_up('longest', of.key_tile)} + 2"
