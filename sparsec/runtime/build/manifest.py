"""What a folder of `sparsec compile` says of itself: `manifest.json` and `layout.json`, to JSON and back.

Invariant: all that a launch reads of a plan survives the way there and back; the tile programs' expressions, which are
in the generated source, stay behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sparsec.backends.cpu.processor import Processor
from sparsec.ir.bands.band import Congruence
from sparsec.ir.bands.liveness import Growth, Region
from sparsec.ir.expr.nodes import FALSE
from sparsec.ir.tiles.program import ListSpec, TileProgram
from sparsec.plan.kernel import BackwardPlan, HeadClass, KernelPlan
from sparsec.plan.kv.cached import CachedPlan, store_classes
from sparsec.plan.kv.layout import CacheLayout
from sparsec.sema.model import Documents
from sparsec.sema.record import score_data, score_of

FORMAT = 4
MANIFEST, LAYOUT = "manifest.json", "layout.json"
_PLAIN_FIELDS = ("heads", "kv_heads", "head_dim", "dtype")
"""Of a KernelPlan: what JSON holds as it is."""


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """One kernel. Registers per thread, bytes per thread or program; None where a target has no such figure.

    `problems` holds what makes it unfit: too much shared memory, no tensor-core instruction. `warnings` tell of spills.
    """

    name: str
    registers: int | None = None
    spills: int | None = None
    stack_bytes: int | None = None
    shared_bytes: int | None = None
    tensor_core_instructions: int | None = None
    tma_instructions: int | None = None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


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
    """What `manifest.json` says; `launch` is `launch_data` of the plans, `files` each file's SHA-256 by its name.

    `processor`: what a library for the CPU needs of the machine, None for a GPU's.
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
    processor: Processor | None = None
    proof: Proof | None = None


@dataclass(frozen=True, slots=True)
class Plans:
    """The plans of a folder's kernels.

    `backward`: None in a folder for inference. `cached`: over a cache, of chunks and of few queries; None for a pattern
    without a cache.
    """

    forward: KernelPlan
    backward: BackwardPlan | None
    cached: tuple[CachedPlan, CachedPlan] | None


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


def launch_data(plans: Plans) -> dict[str, Any]:
    """What launches need to know of the plans, but for the cache's layout."""
    backward = plans.backward
    return {
        "forward": _plan_data(plans.forward),
        "backward": backward
        and {"forward": _plan_data(backward.forward), "transposed": [_class_data(c) for c in backward.transposed]},
        "cached": plans.cached and [_plan_data(cached.attend) for cached in plans.cached],
    }


def plans_of(launch: Mapping[str, Any], layout: CacheLayout | str) -> Plans:
    """The plans that `launch_data` described, with empty tile programs and no slot maps.

    Raises KeyError, TypeError or ValueError for other data.
    """
    backward, cached = launch["backward"], None
    if launch["cached"] is not None and not isinstance(layout, str):
        store = store_classes(layout)
        chunks, few = (CachedPlan(_plan(data), (), store, layout) for data in launch["cached"])
        cached = chunks, few
    return Plans(
        _plan(launch["forward"]),
        backward
        and BackwardPlan(_plan(backward["forward"]), tuple(_head_class(data) for data in backward["transposed"])),
        cached,
    )


def _plan_data(plan: KernelPlan) -> dict[str, Any]:
    plain = {name: getattr(plan, name) for name in _PLAIN_FIELDS}
    classes = [_class_data(c) for c in plan.classes]
    return {**plain, "score": score_data(plan.score), "documents": plan.documents.value, "classes": classes}


def _plan(data: Mapping[str, Any]) -> KernelPlan:
    return KernelPlan(
        **{name: data[name] for name in _PLAIN_FIELDS},
        score=score_of(data["score"], data["heads"]),
        documents=Documents(data["documents"]),
        classes=tuple(_head_class(c) for c in data["classes"]),
    )


def _class_data(head_class: HeadClass) -> dict[str, Any]:
    program = head_class.program
    return {
        "heads": head_class.heads,
        "constants": dict(head_class.constants),
        "query_tile": program.query_tile,
        "key_tile": program.key_tile,
        "lists": [asdict(spec) for spec in program.lists],
        "light": head_class.light,
    }


def _head_class(data: Mapping[str, Any]) -> HeadClass:
    lists = tuple(
        ListSpec(s["width"], s["block"], tuple((seed, lane) for seed, lane in s["lanes"]), s["lane_row"])
        for s in data["lists"]
    )
    program = TileProgram(data["query_tile"], data["key_tile"], (), (), (), FALSE, lists)
    constants = tuple((name, tuple(values)) for name, values in data["constants"].items())
    return HeadClass(tuple(data["heads"]), constants, program, (), data.get("light", False))
