"""The launches of a folder's kernels -> a header for C and C++: the arguments of each as a struct, and its numbers.

Invariant: a struct has the kernel's parameters in order, each as wide as the kernel has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sparsec.backends.built import KernelRecord, LaunchArgument, LaunchRecord
from sparsec.pipeline import Compilation
from sparsec.plan.launch import LaunchPlan

HEADER = "kernels.h"
_QUANTITIES = (
    "batch",
    "nq",
    "nk",
    "q0",
    "documents",
    "slots",
    "splits",
    "listed",
    "kept",
    "entries",
    "columns",
    "longest",
)
_STRIDED = ("q", "k", "v", "out", "g")


def header(compilation: Compilation, kernels: Iterable[KernelRecord]) -> str:
    of, found = compilation, [(kernel.name, kernel.launch) for kernel in kernels if kernel.launch is not None]
    mapped = any(launch.descriptors for _, launch in found)
    shapes = {
        "heads": of.pattern.heads,
        "kv_heads": of.pattern.kv_heads,
        "head_dim": of.head_dim,
        "value_dim": of.value_dim,
    }
    parts = [
        f"// How the kernels of this folder are launched, for {of.target}, in C and C++; manifest.json has it as JSON.",
        "// Programs lie in one dimension, with so many threads each. A struct has a kernel's parameters: addresses",
        "// and tensor maps are yours to set, and so is what a call's inputs decide; _numbers sets all others, and",
        "// _parameters gives the pointers that a launch takes. Tables are to be copied to the GPU.",
        f"// D is head_dim, DV value_dim; q, k, v, out, g, keys and values are {of.dtype}.",
        "#ifndef SPARSEC_KERNELS_H",
        "#define SPARSEC_KERNELS_H",
        "#include <stdint.h>",
        *(["#include <cuda.h>", "#define SPARSEC_TENSOR_MAPS"] if mapped else []),
        "",
        f"enum {{ {', '.join(f'sparsec_{name} = {value}' for name, value in shapes.items())} }};",
        f"#define SPARSEC_SCALE {LaunchPlan.of(of.forward).scale(None)!r}f  // the pattern's; a call may have another",
        "",
        "// What a call is of: strides in elements, over sequences, heads and rows; rows are dense. q0 is the position",
        "// of the first query, longest the most tokens of a sequence after the call, slots those of a cache,",
        "// splits, listed and kept in how many parts few queries take the keys of tiles, of lists, and kept ones,",
        "// entries those that all lists of kept keys have room for, columns the most of a list of columns; scale is",
        "// positive.",
        "typedef struct {",
        f"  int64_t {', '.join(_QUANTITIES)};",
        f"  int64_t {', '.join(f'{name}_stride[3]' for name in _STRIDED)};",
        "  float scale;",
        "} sparsec_sizes;",
    ]
    for name, launch in found:
        parts += ["", *_of_kernel(name, launch)]
    return "\n".join((*parts, "", "#endif", ""))


def _of_kernel(name: str, launch: LaunchRecord) -> list[str]:
    own = f"sparsec_{name.replace('.', '_')}"
    built = ", ".join(f"{key} = {value}" for key, value in launch.constants.items())
    lines = [
        f"// {name}, of {launch.file}: {built}",
        f"enum {{ {own}_threads = {launch.threads}, {own}_shared_bytes = {launch.shared_bytes}, "
        f"{own}_scratch_bytes = {launch.scratch_bytes} }};",
    ]
    for each in launch.descriptors:
        box = ", ".join(map(str, reversed(each.box)))
        argument = f"{own}_{each.argument}"
        lines += [
            f"enum {{ {argument}_element = {each.element}, {argument}_swizzle = {each.swizzle} }};",
            f"static const uint32_t {argument}_box[{len(each.box)}] = {{{box}}};",
        ]
    lines += [_table(f"{own}_{table}", rows) for table, rows in launch.tables.items()]
    lines += ["typedef struct {", *map(_member, launch.arguments), f"}} {own}_arguments;"]
    numbers = [line for argument in launch.arguments for line in _numbers(argument)]
    body = " ".join(numbers)
    count = sum(argument.count for argument in launch.arguments)
    lines += [
        f"static inline int64_t {own}_programs(const sparsec_sizes* of) {{",
        *_quantities(launch.programs),
        f"  return {launch.programs};",
        "}",
        f"static inline void {own}_numbers({own}_arguments* to, const sparsec_sizes* of) {{",
        *_quantities(body),
        *numbers,
        "}",
        f"static inline void {own}_parameters({own}_arguments* of, void* to[{count}]) {{",
        *_parameters(launch.arguments),
        "}",
    ]
    return lines


def _parameters(arguments: Sequence[LaunchArgument]) -> list[str]:
    names = (f"{each.name}[{n}]" if each.count > 1 else each.name for each in arguments for n in range(each.count))
    return [f"  to[{n}] = &of->{name};" for n, name in enumerate(names)]


def _member(argument: LaunchArgument) -> str:
    array = f"[{argument.count}]" if argument.count > 1 else ""
    said = f"  // {argument.points_to}" if argument.points_to else "" if argument.value else "  // of the call's inputs"
    return f"  {argument.type} {argument.name}{array};{said}"


def _numbers(argument: LaunchArgument) -> list[str]:
    if not argument.value:
        return []
    if argument.count == 1:
        return [f"  to->{argument.name} = ({argument.type})({argument.value});"]
    values = argument.value.split(", ")
    return [f"  to->{argument.name}[{n}] = ({argument.type})({value});" for n, value in enumerate(values)]


def _quantities(text: str) -> list[str]:
    """Lines that give what `text` names."""
    names = set(re.findall(r"\b[a-z]\w*", re.sub(r"to->\w+", "", text)))
    lines = [f"  const int64_t {name} = of->{name};" for name in _QUANTITIES if name in names]
    lines += [f"  const int64_t* {name}_stride = of->{name}_stride;" for name in _STRIDED if f"{name}_stride" in names]
    lines += ["  const float scale = of->scale;"] if "scale" in names else []
    return lines or ["  (void)of;"]


def _table(name: str, rows: Sequence[object]) -> str:
    first = rows[0]
    if isinstance(first, Sequence):
        text = ", ".join("{" + ", ".join(map(str, row)) + "}" for row in rows if isinstance(row, Sequence))
        return f"static const int32_t {name}[{len(rows)}][{len(first)}] = {{{text}}};"
    return f"static const float {name}[{len(rows)}] = {{{', '.join(f'{value}f' for value in rows)}}};"
