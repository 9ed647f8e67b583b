"""What a folder of `sparsec compile` says of itself: `manifest.json` and `layout.json`, to JSON and back.

Invariant: what comes back is equal to what went: a launch plan holds all that a call needs, and so does the manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sparsec.backends.built import KernelRecord
from sparsec.ir.bands.band import Asks, Congruence, InputTest
from sparsec.ir.bands.kept import KeptMarks, Need
from sparsec.ir.bands.liveness import Growth, Region
from sparsec.ir.tiles.program import ListSpec
from sparsec.plan.heads import Table
from sparsec.plan.kv.layout import CacheLayout
from sparsec.plan.launch import BackwardLaunch, CachedLaunch, LaunchClass, Launches, LaunchPlan
from sparsec.plan.tiles import tiles_data, tiles_from
from sparsec.sema.model import Documents
from sparsec.sema.record import inputs_data, inputs_of, score_data, score_of

FORMAT = 8
MODEL_FORMAT = 1
MANIFEST, LAYOUT, MODEL = "manifest.json", "layout.json", "model.json"


@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """A claim about the plans that `solver` decided: what is claimed of what, and how long that took."""

    name: str
    about: str
    status: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Proof:
    """The claims about the folder's plans, and the solver, with its version, that decided them."""

    solver: str
    claims: tuple[ClaimRecord, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `manifest.json` says; `launch` is `launch_data`, `files` each file's SHA-256 by its name.

    `processor`: what the kernels need of the machine, as of `backends.base.Built`.
    `request`: the name of the kernels, as of `runtime.request`, from which other processes build them. `proof`: None
    where none was asked for.
    """

    target: str
    pattern: str
    request: str
    versions: Mapping[str, str]
    launch: Mapping[str, Any]
    kernels: tuple[KernelRecord, ...]
    files: Mapping[str, str]
    processor: Mapping[str, Any] | None = None
    proof: Proof | None = None


def layout_data(layout: CacheLayout | str) -> dict[str, Any]:
    """`layout.json`: the regions of each KV group in tokens, and why some grow; or why there is no cache."""
    if isinstance(layout, str):
        return {"groups": None, "why": layout}
    return {
        "groups": [[_region_data(region) for region in group] for group in layout.groups],
        "growth": [asdict(growth) for growth in layout.growth],
    }


def layout_of(data: Mapping[str, Any]) -> CacheLayout | str:
    """What `layout_data` was made from. Raises KeyError or TypeError for other data."""
    if data["groups"] is None:
        return str(data["why"])
    return CacheLayout(
        tuple(tuple(_region(region) for region in group) for group in data["groups"]),
        tuple(Growth(**growth) for growth in data["growth"]),
    )


def _region_data(region: Region) -> dict[str, Any]:
    data = asdict(region)
    if region.residue is not None:
        del data["residue"]["moving"]  # a residue of keys never moves with the query
    return data


def _region(data: Mapping[str, Any]) -> Region:
    residue = None if data["residue"] is None else Congruence(**data["residue"], moving=False)
    return Region(**{**data, "residue": residue})


def launch_data(launches: Launches) -> dict[str, Any]:
    """The launch plans, but for the layout of a cache without lists and of pages, which is `layout.json`."""
    backward, cached, kept, paged = launches.backward, launches.cached, launches.kept, launches.paged
    return {
        "forward": _plan_data(launches.forward),
        "backward": backward
        and {"forward": _plan_data(backward.forward), "transposed": [asdict(each) for each in backward.transposed]},
        "cached": cached and _cached_data(cached),
        "kept": kept and {**_cached_data(kept), "layout": layout_data(kept.layout), "marks": _marks_data(kept.kept)},
        "paged": paged and _cached_data(paged),
    }


def launches_of(data: Mapping[str, Any], layout: CacheLayout | str) -> Launches:
    """What `launch_data` was made from. Raises KeyError, TypeError or ValueError for other data."""
    backward, cached, kept, paged = data["backward"], data["cached"], data["kept"], data["paged"]
    return Launches(
        _plan(data["forward"]),
        backward and BackwardLaunch(_plan(backward["forward"]), tuple(map(_class, backward["transposed"]))),
        cached and _cached(cached, layout),
        kept and _cached(kept, layout_of(kept["layout"]), _marks(kept["marks"])),
        paged and _cached(paged, layout),
    )


def _cached_data(cached: CachedLaunch) -> dict[str, Any]:
    return {"chunks": _plan_data(cached.chunks), "few": _plan_data(cached.few), "store": cached.store}


def _cached(data: Mapping[str, Any], layout: CacheLayout | str, marks: KeptMarks | None = None) -> CachedLaunch:
    if isinstance(layout, str):
        raise TypeError(f"a cache without a layout: {layout}")
    return CachedLaunch(_plan(data["chunks"]), _plan(data["few"]), _table(data["store"]), layout, marks)


def _marks_data(marks: KeptMarks | None) -> dict[str, Any]:
    assert marks is not None, "lists have marks"
    needs = [[{"region": _region_data(need.region), "marks": need.marks} for need in group] for group in marks.needs]
    return {"ordinals": marks.ordinals, "share": marks.share, "needs": needs, "apart": marks.apart}


def _marks(data: Mapping[str, Any]) -> KeptMarks:
    needs = (tuple(Need(_region(need["region"]), need["marks"]) for need in group) for group in data["needs"])
    return KeptMarks(tuple(data["ordinals"]), data["share"], tuple(needs), tuple(data["apart"]))


def _plan_data(plan: LaunchPlan) -> dict[str, Any]:
    return {
        **asdict(plan),
        "score": score_data(plan.score),
        "documents": plan.documents.value,
        "declared": inputs_data(plan.declared),
        "inputs": [{**asdict(test), "asks": test.asks.value} for test in plan.inputs],
        "looked_up": [plan.inputs.index(test) for test in plan.looked_up],
        "tiles": tiles_data(plan.tiles),
        "columns": [plan.inputs.index(test) for test in plan.columns],
    }


def _plan(data: Mapping[str, Any]) -> LaunchPlan:
    declared = inputs_of(data["declared"])
    inputs = tuple(InputTest(**{**test, "asks": Asks(test["asks"])}) for test in data["inputs"])
    given = {
        **data,
        "declared": declared,
        "inputs": inputs,
        "looked_up": tuple(inputs[n] for n in data["looked_up"]),
        "columns": tuple(inputs[n] for n in data["columns"]),
        "score": score_of(data["score"], data["heads"], declared),
        "documents": Documents(data["documents"]),
        "classes": tuple(map(_class, data["classes"])),
        "tiles": tiles_from(data.get("tiles", {})),
    }
    return LaunchPlan(**given)


def _class(data: Mapping[str, Any]) -> LaunchClass:
    lists = (
        ListSpec(**{**spec, "lanes": tuple((seed, lane) for seed, lane in spec["lanes"])}) for spec in data["lists"]
    )
    return LaunchClass(**{**data, "table": _table(data["table"]), "lists": tuple(lists)})


def _table(rows: Iterable[Iterable[int]]) -> Table:
    return tuple(map(tuple, rows))
