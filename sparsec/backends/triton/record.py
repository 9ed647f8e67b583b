"""What Triton has compiled -> how it is launched elsewhere: the arguments in order, as C has them, and tensor maps.

Invariant: the arguments are as many, and as wide, as the compiled kernel says its parameters are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sparsec.backends.built import LaunchArgument, LaunchDescriptor, LaunchRecord
from sparsec.backends.triton.modifiers import modifiers_of
from sparsec.backends.triton.programs import Programs
from sparsec.diagnostics.model import InternalError
from sparsec.plan.launch import LaunchPlan

WIDTHS = {"uint64_t": 8, "int64_t": 8, "int32_t": 4, "float": 4, "CUtensorMap": 128}
"""Bytes of the types of arguments."""
_LISTED = ("listed_keys", "listed_values")
SOURCES = {"keys": "k", "values": "v", "queries": "q", "gradients": "g", **dict(zip(_LISTED, _LISTED, strict=True))}
"""What comes in chunks of columns, or once a list, by the name that these have before `_<n>`."""
_TYPES = {"i32": "int32_t", "i64": "int64_t", "fp32": "float"}
_SCRATCH = ("global_scratch", "profile_scratch")
"""What Triton adds to the arguments, in its order; a version may have the first alone."""
_NUMBERS = {"batches": "batch", "scale_log2": "scale * 1.4426950408889634f"}
_NUMBERS |= {name: name for name in ("nq", "nk", "q0", "slots", "splits", "entries")}
_NUMBERS |= {"mass_keys": "nk"}
_DESCRIBED = {
    "q": "the queries [batch, heads, nq, D]",
    "k": "the keys [batch, kv_heads, nk, D]",
    "v": "the values [batch, kv_heads, nk, DV]",
    "g": "the output's gradient [batch, heads, nq, DV]",
    "out": "the output [batch, heads, nq, DV]",
    "lse": "float [batch, heads, nq]: the natural log-sum-exp of each row",
    "log_sum": "float [batch, heads, nq]: the same to base 2, infinite for a row that sees no key",
    "delta": "float [batch, heads, nq]: sum(g * out) of each row",
    "grad_q": "the gradient of q, dense",
    "grad_k": "the gradient of k, dense",
    "grad_v": "the gradient of v, dense",
    "mass": "float [batch, heads, nk], zeros before",
    "mass_groups": "int32 [kv_heads]: 0 where no mass is asked for",
    "sink": "float [heads]: the learned sink",
    "sink_parts": "float [batch, heads, tiles]: what the sink's gradient is the sum of",
    "bias": "float: the key bias",
    "grad_bias": "float [batch, heads, nk], zeros before",
    "keys": "the cache's keys [batch, slots, D]",
    "values": "the cache's values [batch, slots, DV]",
    "lengths": "int32 [batch]: the tokens in the cache",
    "counts": "int32 [batch]: how many of the nq tokens, the last ones, are the sequence's own; of columns see Lookup",
    "listed": "int32 [list_batches, list_heads, list_width]: the columns of each KV group, or head, in ascending order",
    **{
        name: f"{of}, dense, as copy_listed_ writes them: [batch, x, rows, {dim}] of x lists, or kv_heads if these are "
        "more; columns rows, or nq, zeros before, where positions count within documents"
        for name, of, dim in zip(_LISTED, ("the listed keys", "their values"), ("D", "DV"), strict=True)
    },
    "kept_keys": "the lists' keys [entries, D]",
    "kept_values": "the lists' values [entries, DV]",
    "kept_entries": "int32 [1 + words, entries]: of each key its position, then its marks",
    "kept_lists": "int32 [batch, kv_heads, 3]: of each list its first entry, how many it has room for, how many it has",
    "tiles_out": "float [batch, heads, nq, DV]: the output of the other keys",
    "tiles_lse": "float [batch, heads, nq]: the log-sum-exp of the other keys",
    "places": "int32 [kv_heads, regions, 2]: base and capacity of each region of layout.json",
    "parts": "float [splits, batch, heads, nq, DV]; not written for one split",
    "part_logs": "float [splits, batch, heads, nq]; not written for one split",
    "head_splits": "int32 [heads]: the splits of each head",
    "document_tiles": "int32 [.., 3]: of each tile its number, and its document's first row and one past its last",
    "unsure": "int32 [programs], zeros before: 1 where the kernel of the same number in again.py is to compute again",
    "visits": "int32 [programs of the kernel, visits_row]: tiles that the list_ kernel has found",
    "listing": "int32: the rows that list entry 0, those that list entry 1, ...",
    "starts": "int32: where in the listing each entry's rows start",
    "global_scratch": "scratch_bytes a program; null for 0",
    "profile_scratch": "null",
}


def launch_of(
    name: str,
    plan: LaunchPlan,
    programs: Programs,
    signature: Mapping[str, str],
    constants: Mapping[str, object],
    metadata: Any,
    code: Mapping[str, bytes],
) -> LaunchRecord:
    """The launch of kernel `name`, compiled for these; `code`: its files by their endings."""
    arguments: list[LaunchArgument] = []
    descriptors: list[LaunchDescriptor] = []
    found = list(getattr(metadata, "tensordesc_meta", None) or ())
    fixed = {number: repr(value) for each in modifiers_of(plan) for number, value in each.numbers}
    numbers = {**_NUMBERS, **programs.numbers, **fixed}
    vector = constants.get("VECTOR", 1)
    for argument, kind in signature.items():
        if kind == "constexpr":
            continue
        if kind.startswith("tensordesc"):
            each = found.pop(0)
            source = SOURCES[argument.rpartition("_")[0] or argument]
            box = tuple(each["block_size"])
            descriptors.append(
                LaunchDescriptor(argument, source, box, each["swizzle"], _host_element(each["elem_type"]))
            )
            arguments += _mapped(argument, source, plan)
        elif kind.startswith("*"):
            arguments.append(LaunchArgument(argument, "uint64_t", points_to=_described(argument)))
        else:
            value = numbers.get(argument, _stride(argument, int(str(vector))))
            arguments.append(LaunchArgument(argument, _TYPES[kind], value))
    binary = "cubin" if "cubin" in code else "hsaco"
    behind = _behind(name, arguments, _parameters(code))
    arguments += [LaunchArgument(each, "uint64_t", points_to=_DESCRIBED[each]) for each in behind]
    tables: dict[str, tuple[Any, ...]] = {each: rows for each, rows in programs.tables.items() if each in signature}
    tables |= {each: values for of in modifiers_of(plan) for each, values in of.tables if each in signature}
    return LaunchRecord(
        f"{name}.{binary}",
        programs.programs,
        metadata.num_warps * getattr(metadata, "warp_size", 32),
        metadata.shared,
        getattr(metadata, "global_scratch_size", 0) or 0,
        tuple(arguments),
        tuple(descriptors),
        {each: value if isinstance(value, int | str) else str(value) for each, value in constants.items()},
        tables,
    )


def _mapped(argument: str, source: str, plan: LaunchPlan) -> list[LaunchArgument]:
    """A tensor map, and what Triton passes behind it."""
    rows = "nq" if source in "qg" else "nk"
    heads = plan.heads if source in "qg" else plan.kv_heads
    columns = plan.head_dim if source in "qk" else plan.value_dim
    shape, strides = f"batch, {heads}, {rows}, {columns}", ", ".join(f"{source}_stride[{n}]" for n in range(3)) + ", 1"
    if source in _LISTED:
        shape = strides = ""
    return [
        LaunchArgument(argument, "CUtensorMap", points_to=_DESCRIBED[source]),
        LaunchArgument(f"{argument}_shape", "int32_t", shape, count=4),
        LaunchArgument(f"{argument}_strides", "int64_t", strides, count=4),
    ]


def _described(argument: str) -> str:
    """Chunks of columns are given the tensor itself where there is no descriptor of it."""
    stem, _, number = argument.rpartition("_")
    if argument in _DESCRIBED:
        return _DESCRIBED[argument]
    if stem in SOURCES and number.isdecimal():
        return _DESCRIBED[SOURCES[stem]]
    if stem == "draws":
        return "int32: a table of draws"
    return (
        "the table of its name" if argument in ("table", "spans", "members", "wanted", "head_slopes") else "see Lookup"
    )


def _stride(argument: str, vector: int) -> str:
    tensor, _, of = argument.rpartition("_")
    places = {"batch": 0, "head": 1, "row": 2}
    return f"{tensor}_stride[{places[of]}] / {vector}" if of in places and tensor in _DESCRIBED else ""


def _host_element(element: int) -> int:
    """The compiler's number of a type as `CUtensorMapDataType` has it."""
    return {8: 10, 9: 8, 10: 9}.get(element, element)


def _parameters(code: Mapping[str, bytes]) -> list[int]:
    """The bytes of each parameter, by the compiler's own text."""
    if "ptx" in code:
        entry = code["ptx"].decode().partition(".entry ")[2].partition(")")[0]
        found = re.findall(
            r"\.param\s+(?:\.align\s+\d+\s+)?\.[a-z](\d+)\s[^,\n]*?\w+(?:\[(\d+)\])?\s*(?:,|$)", entry, re.M
        )
        return [int(bits) // 8 * int(count or 1) for bits, count in found]
    kernel = code["amdgcn"].decode().partition(".args:")[2].partition(".group_segment_fixed_size")[0]
    found = re.findall(r"\.size:\s+(\d+)\s+\.value_kind:\s+(\w+)", kernel)
    return [int(size) for size, kind in found if not kind.startswith("hidden")]


def _behind(name: str, arguments: Sequence[LaunchArgument], parameters: list[int]) -> tuple[str, ...]:
    """The names of what Triton adds to the arguments."""
    widths = [WIDTHS[each.type] for each in arguments for _ in range(each.count)]
    added = len(parameters) - len(widths)
    if not 0 <= added <= len(_SCRATCH) or parameters != [*widths, *[8] * added]:
        raise InternalError(f"the arguments of a kernel are those that it was compiled for: {name}, {parameters}")
    return _SCRATCH[:added]
