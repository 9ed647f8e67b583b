"""Generated Triton source -> machine code for a GPU that need not be there, with what the compiler made of it.

Invariant: nothing here asks for a driver or a device; the same source, plan and target give the same artefacts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sparsec.backends.built import LaunchRecord
from sparsec.backends.triton.assembler import assembling
from sparsec.backends.triton.emit_paged import REQUESTS
from sparsec.backends.triton.launches import FP_FUSION, VECTOR_BYTES
from sparsec.backends.triton.lookups import ELEMENTS
from sparsec.backends.triton.machine_code import AheadOfTimeError, amd_code, nvidia_code
from sparsec.backends.triton.modifiers import modifiers_of
from sparsec.backends.triton.modules import load_module
from sparsec.backends.triton.programs import (
    Programs,
    of_caches,
    of_chunks,
    of_few,
    of_keys,
    of_masses,
    of_queries,
    of_rows,
)
from sparsec.backends.triton.record import launch_of
from sparsec.ir.bands.band import Asks
from sparsec.plan.kernel import BackwardPlan, KernelPlan
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.launch import BackwardLaunch, CachedLaunch, LaunchClass, LaunchPlan
from sparsec.plan.list_shapes import gather_rows, gather_shape, kept_shape
from sparsec.plan.target import (
    MERGED,
    PLAIN,
    STORE_ROWS,
    SUM_ROWS,
    WALKED_TILES,
    LaunchShape,
    decode_rows,
    shared_memory_bytes,
)

_LOOKUPS = {
    "draws": "i32",
    "said": "u8",
    **{stem: "u8" if dtype == torch.uint8 else "i32" for stem, dtype in ELEMENTS.items()},
}
"""Tensors of integers, by their names before `_<n>`."""
_ELEMENTS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
TENSOR_CORES = re.compile(r"\b(HGMMA|HMMA|UTCHMMA|UTCQMMA|IMMA|v_s?mfma_\w+)")
_MOVERS = ("row_sums", "merge", "store", "append", "list_", "count_", "join_", "copy_")
"""Kernels without a product of matrices."""
_ABSENT = ("grad_lse", "tasks", "key_parts")
"""Tensors that most calls do without: kernels are built for None."""
_CONSTANTS_NAMED = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 7)
"""Whether launches name every constant among what they know of arguments, or those that are strings alone: with the
same names Triton's cache takes what is built here for what a launch would build."""
TMA = re.compile(r"\b(UTMALDG|UTMASTG)")


@dataclass(frozen=True, slots=True)
class KernelArtefact:
    """One kernel for one target.

    `registers` per thread; `spill_bytes` and `stack_bytes` per thread; `shared_bytes` per program; `tensor_core` and
    `tma` count instructions in the machine code; `files` are (name, content): PTX and cubin, or assembly and hsaco, and
    Triton's description of them. `launch`: see `backends.built.LaunchRecord`.
    """

    name: str
    target: str
    dtype: str
    warps: int
    stages: int
    registers: int
    spill_bytes: int
    stack_bytes: int
    shared_bytes: int
    tensor_core: int
    tma: int
    files: tuple[tuple[str, bytes], ...]
    launch: LaunchRecord | None = None


@dataclass(frozen=True, slots=True)
class KernelFindings:
    """What is wrong with a kernel: `problems` make it unfit, `warnings` tell of spills, which make it slower."""

    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def compile_ahead(
    source: str, plan: KernelPlan, target: str, *, allow_tf32: bool = False
) -> tuple[KernelArtefact, ...]:
    """Builds every kernel of `source`, which `emit_triton(plan)` gave, for `target` (`cuda:90`, `hip:gfx942`).

    Raises ValueError for a target of another form, AheadOfTimeError if the compiler fails.
    """
    gpu = _gpu_target(target)
    module, launch = load_module(source), LaunchPlan.of(plan)
    built = []
    for n, launched in enumerate(launch.classes):
        tiles, shape = (launched.query_tile, launched.key_tile), launch.shape(launched, target)
        request = _Request(launch, target, gpu, shape, tiles, allow_tf32, gathers=plan.gathers)
        built += _of_class(module, f"forward_{n}", launched, request, of_queries(f"forward_{n}", launch, launched))
    return tuple(built)


def compile_ahead_backward(
    source: str, plan: BackwardPlan, target: str, *, allow_tf32: bool = False, parts: bool = False
) -> tuple[KernelArtefact, ...]:
    """Builds every kernel of `source`, which `emit_triton_backward(plan)` gave; raises as `compile_ahead` does.

    `parts`: instead, those of long calls, whose programs share the query tiles of key tiles.
    """
    gpu = _gpu_target(target)
    module, launch = load_module(source), BackwardLaunch.of(plan)
    rows = _Request(launch.forward, target, gpu, PLAIN, (0, 0), allow_tf32)
    if parts:
        return tuple(_of_parts(module, launch, rows))
    built = [_compile(module.row_sums, rows, of_rows(launch.forward.heads))]
    key_classes = launch.transposed
    kinds = ("grad_queries", launch.forward.classes), ("grad_keys", key_classes), ("key_mass", key_classes)
    for kind, classes in kinds:
        for n, launched in enumerate(classes):
            tiles = launched.query_tile, launched.key_tile
            shape = launch.shape(launched, target, of_keys=kind != "grad_queries")
            adds = launch.adds_up or bool(plan.forward.columns)
            sums = {"wide": adds, "gathers": plan.forward.gathers}
            request = _Request(launch.forward, target, gpu, shape, tiles, allow_tf32, **sums)
            on = f"{kind}_{n}", launch.forward, launched
            programs = of_queries(*on) if kind == "grad_queries" else of_keys(*on, target)
            built += _of_class(module, f"{kind}_{n}", launched, request, programs)
            lists = [f"gather_{kind}_{n}_{plan.forward.inputs.index(test)}" for test in plan.forward.columns]
            of_list = replace(request, tiles=(launched.query_tile, launched.of_list.key_tile))
            built += [
                _compile(getattr(module, each), of_list, programs[each]) for each in lists if hasattr(module, each)
            ]
    return tuple(built)


def compile_ahead_cached(
    source: str, chunks: CachedPlan, decode: CachedPlan, target: str, *, rows: int = 16, masses: bool = False
) -> tuple[KernelArtefact, ...]:
    """Builds the kernels of `source`, which `emit_triton_cached(chunks, decode)` gave; raises as `compile_ahead` does.

    `rows`: of one decode program, 16, 32 or 64 (a launch takes as many as it has query rows and heads of a pack).
    `masses`: those too that a call without `return_mass` does not launch.
    """
    gpu = _gpu_target(target)
    module, launch = load_module(source), CachedLaunch.of(chunks, decode)
    built = []
    for n, launched in enumerate(launch.chunks.classes):
        tiles, shape = (launched.query_tile, launched.key_tile), launch.chunk_shape(launched, target)
        gathers = any(hasattr(module, f"gather_attend_{m}") for m in range(len(launch.chunks.classes)))
        of_lists = gathers or hasattr(module, f"kept_attend_{n}")
        request = _Request(launch.chunks, target, gpu, shape, tiles, False, gathers=of_lists)
        programs = of_chunks(f"attend_{n}", launch, launched, target)
        built += _of_class(module, f"attend_{n}", launched, request, programs, _members(launch, launched, target))
        most = decode_rows(target, launch.few.widest, launch.few.dtype)
        built += _of_lists(module, f"kept_attend_{n}", replace(request, rows=most, gathers=gathers), programs)
        if masses:
            programs = of_masses(n, launched)
            built += _of_class(module, f"mass_{n}", launched, request, programs, 1)
            built += _of_lists(module, f"kept_mass_{n}", replace(request, rows=most), programs)
    for n, launched in enumerate(launch.few.classes):
        tiles, shape = (launched.query_tile, launched.key_tile), launch.decode_shape(launched, target, rows)
        request = _Request(launch.few, target, gpu, shape, tiles, False, rows=rows)
        programs = of_few(f"decode_{n}", launch, launched, target)
        built += _of_class(module, f"decode_{n}", launched, request, programs, _members(launch, launched, target))
        built += _of_lists(module, f"kept_decode_{n}", request, programs)
    for name, each in of_caches(launch).items():
        request = _Request(launch.chunks, target, gpu, PLAIN, (0, 0), False, rows=STORE_ROWS)
        built.append(_compile(getattr(module, name), request, each))
    return tuple(built)


def compile_ahead_paged(
    source: str, launch: CachedLaunch, target: str, *, page_size: int = 16, rows: int = 16
) -> tuple[KernelArtefact, ...]:
    """Builds every kernel of a `TritonPaged`, by its source and plan; raises as `compile_ahead` does."""
    gpu, module, built = _gpu_target(target), load_module(source), []
    for n, of in enumerate(launch.chunks.classes):
        shape = launch.chunk_shape(of, target)
        request = _Request(launch.chunks, target, gpu, shape, (of.query_tile, of.key_tile), False, page_size=page_size)
        built.append(_compile(getattr(module, f"attend_{n}"), request, None))
    for n, of in enumerate(launch.few.classes):
        shape, tiles = launch.decode_shape(of, target, rows), (of.query_tile, of.key_tile)
        request = _Request(launch.few, target, gpu, shape, tiles, False, rows=rows, page_size=page_size)
        built.append(_compile(getattr(module, f"decode_{n}"), request, None))
    built.append(_compile(module.merge, _Request(launch.few, target, gpu, PLAIN, (0, 0), False), None))
    return tuple(built)


def _members(launch: CachedLaunch, launched: LaunchClass, target: str) -> int:
    """The query heads of a pack, for one row."""
    return len(launch.decode_packs(launched, target, 1).members[0])


def _of_class(
    module: Any,
    name: str,
    launched: LaunchClass,
    request: _Request,
    programs: Mapping[str, Programs],
    members: int | None = None,
) -> list[KernelArtefact]:
    """The tile kernel `name` of a class, and those that inputs alone call for, as far as the module has them.

    `members`: the query heads of a program that takes lists of rows; None for those of a KV group.
    """
    plan = request.plan
    shape, keys = gather_shape(request.target, plan.head_dim, plan.dtype)
    rows = gather_rows(members or max(count for _, _, count in plan.spans(launched)))
    found = [(f"list_{name}", replace(request, shape=PLAIN)), (name, request)]
    found.append((f"gather_{name}", replace(request, shape=shape, rows=rows, keys=keys)))
    for g, test in enumerate(plan.inputs):
        if test.asks is Asks.ROW:
            most = min(keys, gather_rows(test.width))
            of_keys = replace(request, shape=shape, rows=keys, keys=most)
            found.append((f"gather_{name}_{g}", of_keys))
    return [
        _compile(getattr(module, kernel), each, programs[kernel]) for kernel, each in found if hasattr(module, kernel)
    ]


def _of_parts(module: Any, launch: BackwardLaunch, request: _Request) -> Iterator[KernelArtefact]:
    for n, of in enumerate(launch.transposed):
        name, shape = f"grad_keys_{n}", launch.shape(of, request.target, of_keys=True)
        if hasattr(module, f"count_{name}"):
            wide = replace(request, wide=launch.adds_up or bool(launch.forward.columns), parts=True)
            yield _compile(getattr(module, f"count_{name}"), request, None)
            yield _compile(getattr(module, f"join_{name}"), wide, None)
            tiles = of.query_tile, of.key_tile
            yield _compile(getattr(module, name), replace(wide, shape=shape, tiles=tiles), None)


def _of_lists(module: Any, name: str, request: _Request, programs: Mapping[str, Programs]) -> list[KernelArtefact]:
    """The kernel `name` over lists of kept keys, if the module has it."""
    if not hasattr(module, name):
        return []
    shape, keys = kept_shape(request.target, request.plan.widest, request.plan.dtype, request.rows)
    return [_compile(getattr(module, name), replace(request, shape=shape, keys=keys), programs[name])]


def findings_of(artefact: KernelArtefact) -> KernelFindings:
    """What a machine without a GPU can tell is wrong with the kernel."""
    problems, warnings = [], []
    if artefact.spill_bytes or artefact.stack_bytes:
        warnings.append(
            f"{artefact.name} for {artefact.target} spills registers: {artefact.spill_bytes} bytes spilled, "
            f"{artefact.stack_bytes} bytes of stack a thread"
        )
    limit = shared_memory_bytes(artefact.target)
    if artefact.shared_bytes > limit:
        problems.append(
            f"{artefact.name} for {artefact.target} needs {artefact.shared_bytes} bytes of shared memory, over {limit}"
        )
    if artefact.tensor_core == 0 and artefact.dtype != "float32" and not artefact.name.startswith(_MOVERS):
        problems.append(f"{artefact.name} for {artefact.target} has no tensor-core instruction")
    return KernelFindings(tuple(problems), tuple(warnings))


def _gpu_target(target: str) -> GPUTarget:
    match target.split(":"):
        case ["cuda", arch] if arch.isdecimal():
            return GPUTarget("cuda", int(arch), 32)
        case ["hip", arch] if re.fullmatch(r"gfx[0-9a-f]+", arch):
            return GPUTarget("hip", arch, 64)
    raise ValueError(f"expected a target such as cuda:90 or hip:gfx942, got {target!r}")


@dataclass(frozen=True, slots=True)
class _Request:
    """How to compile a kernel.

    `tiles`: query and key tile; `wide`: gradients of keys and values are added up; `gathers`: kernels of lists add to
    what others leave; `rows` of one program, where the launch decides it; `parts`: as of `compile_ahead_backward`.
    """

    plan: LaunchPlan
    target: str
    gpu: GPUTarget
    shape: LaunchShape
    tiles: tuple[int, int]
    tf32: bool
    wide: bool = False
    gathers: bool = False
    rows: int = SUM_ROWS
    keys: int = 0
    page_size: int = 0
    parts: bool = False


def _compile(kernel: Any, request: _Request, programs: Programs | None) -> KernelArtefact:
    """`programs`: None of a kernel that no folder holds."""
    plan, target, gpu, shape = request.plan, request.target, request.gpu, request.shape
    element = _ELEMENTS[plan.dtype]
    pointers = dict.fromkeys(("q", "k", "v", "g"), element)
    pointers |= dict.fromkeys(("out", "grad_q"), "fp32" if request.gathers else element)
    pointers |= dict.fromkeys(("grad_k", "grad_v"), "fp32" if request.wide or request.gathers else element)
    pointers |= dict.fromkeys(("lse", "log_sum", "delta", "sink", "sink_parts", "mass", "bias", "grad_bias"), "fp32")
    pointers |= dict.fromkeys(("keys", "values"), element) | dict.fromkeys(("parts", "part_logs"), "fp32")
    pointers |= dict.fromkeys(("table", "spans", "document_tiles", "members", "head_splits", "unsure"), "i32")
    pointers |= dict.fromkeys(("visits", "listing", "starts", "listed", "page_table"), "i32")
    pointers |= dict.fromkeys(
        ("lengths", "counts", "places", "mass_groups", "kept_entries", "kept_lists", "wanted", "steps"), "i32"
    )
    pointers |= dict.fromkeys(("kept_keys", "kept_values"), element) | dict.fromkeys(("tiles_out", "tiles_lse"), "fp32")
    pointers |= {"tasks": "i32", "joined": "i32", "key_parts": "fp32"}
    for modifier in modifiers_of(plan):
        pointers |= dict.fromkeys(dict(modifier.tables), "fp32")
    numbers = {"scale_log2", *(name for modifier in modifiers_of(plan) for name, _ in modifier.numbers)}
    sources = dict.fromkeys(("keys", "values"), request.tiles[1]) | dict.fromkeys(
        ("queries", "gradients"), request.tiles[0]
    )
    absent = _ABSENT[:1] if request.parts else _ABSENT
    signature: dict[str, str] = {}
    for n, name in enumerate(kernel.arg_names):
        parameter = kernel.params[n]
        stem, _, chunk = name.rpartition("_")
        if parameter.is_constexpr or name in absent:
            signature[name] = "constexpr"
        elif parameter.annotation_type:
            signature[name] = parameter.annotation_type
        elif name in numbers:
            signature[name] = "fp32"
        elif stem in sources and shape.tma:
            signature[name] = f"tensordesc<{element}[1, 1, {sources[stem]}, {plan.chunks[stem][int(chunk)].width}]>"
        else:
            pointee = element if stem in sources else pointers.get(name) or _LOOKUPS[stem]
            signature[name] = f"*{pointee}"
    constants = {
        "VECTOR": VECTOR_BYTES // {"fp32": 4}.get(element, 2),
        "TMA": shape.tma,
        "OPERAND": getattr(tl, plan.dtype),
        "PRECISION": "tf32" if request.tf32 and gpu.backend == "cuda" else "ieee",
        "ROWS": request.rows,
        "PARTS": MERGED,
        "KEYS": request.keys,
        "WALK": WALKED_TILES,
        "PAGE": request.page_size,
        "REQUESTS": REQUESTS,
        "SPLIT": request.parts,
        **dict.fromkeys(absent),
    }
    constants = {name: value for name, value in constants.items() if name in signature}
    attributes: dict[tuple[int], list[list[object]]] = {}
    for n, (name, kind) in enumerate(signature.items()):
        if kind.startswith("*"):
            attributes[(n,)] = [["tt.divisibility", 16]]
        elif kind == "constexpr" and (_CONSTANTS_NAMED or isinstance(constants[name], str)):
            attributes[(n,)] = []
    options = {"num_warps": shape.warps, "num_stages": shape.stages, "enable_fp_fusion": FP_FUSION}
    if shape.maxnreg is not None:
        options["maxnreg"] = shape.maxnreg
    try:
        with assembling():
            built = triton.compile(ASTSource(kernel, signature, constants, attributes), target=gpu, options=options)
    except Exception as error:
        raise AheadOfTimeError(f"triton cannot compile {kernel.__name__} for {target}: {error}") from error
    code, listing, usage = (amd_code if gpu.backend == "hip" else nvidia_code)(built)
    described = Path(built.metadata_group[f"{kernel.__name__}.json"]).read_bytes()
    files = tuple((f"{kernel.__name__}.{ending}", data) for ending, data in (*code, ("json", described)))
    given = {name: value for name, value in constants.items() if value is not None}
    launch = None
    if programs is not None:
        launch = launch_of(kernel.__name__, plan, programs, signature, given, built.metadata, dict(code))
    return KernelArtefact(
        kernel.__name__,
        target,
        plan.dtype,
        shape.warps,
        shape.stages,
        usage["registers"],
        usage["spills"],
        usage["stack"],
        built.metadata.shared,
        len(TENSOR_CORES.findall(listing)),
        len(TMA.findall(listing)),
        files,
        launch,
    )
