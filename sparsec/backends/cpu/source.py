"""The kernels' headers and what a pattern prints -> one C++ file that needs nothing beside it.

Invariant: a header comes once, after all that it includes, and only if the kernel needs it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from posixpath import dirname, join, normpath

from sparsec._resources import read_data
from sparsec.backends.cpu import calls
from sparsec.backends.cpu.calls import CallStruct
from sparsec.backends.cpu.view import CppView
from sparsec.backends.environment import render
from sparsec.plan import target

_KERNELS = "templates/cpu/kernels"
_CALLS = "printed/calls.h"
_GUARDED = re.compile(r"#if (?P<condition>[^\n]+)\n#include <(?P<system>\w+\.h)>\n#endif\n")
_INCLUDE = re.compile(r'#include (?:<(?P<system>\w+)>|"(?P<own>[\w./]+)")')


@dataclass(frozen=True, slots=True)
class Header:
    """A header's own text, without what it includes: names of system headers, and paths within the kernels' folder.

    `guarded`: (condition, name) of each system header that is there under a condition alone.
    """

    system: tuple[str, ...]
    own: tuple[str, ...]
    text: str
    guarded: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Joined:
    """`includes`: the system headers that `text` needs, sorted; `guarded`: those that it needs under a condition."""

    includes: tuple[str, ...]
    text: str
    guarded: tuple[tuple[str, str], ...]


def joined_headers(roots: Sequence[str], printed: Mapping[str, str]) -> Joined:
    """The headers `roots` and all that they include; `printed` stands in place of the files of these paths."""
    found: dict[str, Header] = {}

    def add(path: str) -> None:
        if path not in found:
            header = parsed_header(printed[path], path) if path in printed else _stored(path)
            for own in header.own:
                add(own)
            found[path] = header

    for root in roots:
        add(root)
    system = sorted({name for header in found.values() for name in header.system})
    guarded = sorted({each for header in found.values() for each in header.guarded})
    return Joined(tuple(system), "\n".join(header.text for header in found.values() if header.text), tuple(guarded))


def parsed_header(text: str, path: str) -> Header:
    """The header `text` at `path`; its directives come before all else."""
    system, own, lines = [], [], []
    guarded = tuple((match["condition"], match["system"]) for match in _GUARDED.finditer(text))
    text = _GUARDED.sub("", text)
    for line in text.splitlines():
        match = _INCLUDE.fullmatch(line)
        if match is None:
            lines.append(line)
        elif match["system"]:
            system.append(match["system"])
        else:
            own.append(normpath(join(dirname(path), match["own"])))
    body = "\n".join(line for line in lines if line != "#pragma once").strip()
    return Header(tuple(system), tuple(own), f"{body}\n" if body else "", guarded)


@cache
def _stored(path: str) -> Header:
    return parsed_header(read_data(f"{_KERNELS}/{path}"), path)


@dataclass(frozen=True, slots=True)
class Kernel:
    """What sets one kind of kernel apart from another.

    `headers`: those that it starts from. `keys`, `rows`: the headers that say where the keys of a tile lie, and of a
    row. `by_row`: all keys are those of rows, which are widened in registers. `shares`: the fewest keys of a
    task, where a row is shared out, and the most tasks. `widened`: products are of floats, whatever the elements are.
    """

    template: str
    headers: tuple[str, ...]
    structs: tuple[CallStruct, ...]
    keys: str = "call_keys.h"
    rows: str = "call_rows.h"
    by_row: bool = False
    shares: tuple[int, int] = (target.CPU_KEYS_A_TASK, target.CPU_MOST_TASKS)
    widened: bool = False
    at_once: int = target.CPU_KEYS_AT_ONCE


FORWARD = Kernel("forward", ("forward.h",), (calls.LIST, calls.LOOKUP, calls.FORWARD))
BACKWARD = Kernel("backward", ("backward.h",), (calls.LIST, calls.LOOKUP, calls.BACKWARD))
MASS = Kernel("mass", ("mass.h",), (calls.LIST, calls.LOOKUP, calls.MASS), widened=True)
CHUNK = Kernel(
    "cached",
    ("chunk.h", "store.h"),
    (calls.LIST, calls.LOOKUP, calls.MARKS, calls.KEPT, calls.CACHED),
    "cached_keys.h",
    "cached_rows.h",
)
ENCODED = replace(CHUNK, headers=(*CHUNK.headers, "encode.h"))
"""Chunks over a cache that stores its keys in another type than the call's."""
ROWS = Kernel(
    "decode",
    ("decode.h",),
    CHUNK.structs,
    rows="cached_rows.h",
    by_row=True,
    at_once=target.CPU_CACHED_KEYS_AT_ONCE,
)
ROW_MASS = replace(ROWS, template="decode_mass", headers=("cached_mass.h",))


PAGED_CHUNKS = Kernel(
    "paged", ("paged_chunk.h",), (calls.LIST, calls.LOOKUP, calls.PAGED), "paged_keys.h", "paged_rows.h"
)
PAGED_ROWS = Kernel(
    "paged_decode",
    ("paged_decode.h",),
    PAGED_CHUNKS.structs,
    rows="paged_rows.h",
    by_row=True,
    shares=(target.CPU_PAGED_KEYS_A_TASK, target.CPU_PAGED_MOST_TASKS),
)


def print_kernel(kernel: Kernel, view: CppView) -> str:
    """The whole file of one kernel."""
    roots = (*kernel.headers, *(("draws.h",) if view.lists else ()))
    own = [c.own for c in (view.classes if kernel.by_row else view.gathered)]
    lists = {gather.kept for each in own for gather in each.gathers}
    roots += (*(("own_keys.h",) if False in lists else ()), *(("kept/keys.h",) if True in lists else ()))
    if any(each.kept for each in view.classes):
        roots += ("kept/tiles.h",)
    if view.columns and not view.transposed:
        roots += (f"columns/{'keys' if kernel.by_row else 'tiles'}.h",)
    if view.kept is not None and not kernel.by_row:
        roots += ("kept/append.h",)
    if any(each.draws for each in own) or (view.lane == "j" and any(each.draws for each in view.columns)):
        roots += ("drawn_pairs.h",)
    parts = joined_headers(roots, {**printed_headers(kernel, view), _CALLS: "#include <cstdint>"})
    structs = tuple(struct.declaration() for struct in kernel.structs)  # outside the namespace of the rest
    whole = replace(view, includes=parts.includes, guarded=parts.guarded, structs=structs, headers=parts.text)
    return render(f"templates/cpu/{kernel.template}.cpp.jinja", whole)


def printed_headers(kernel: Kernel, view: CppView) -> dict[str, str]:
    """Path within the kernels' folder -> what a pattern prints there; the files in that place are an example."""
    widened = kernel.by_row or kernel.widened or view.kv_dtype != view.dtype
    operands = "native" if view.dtype == "bfloat16" and not widened else "widened"
    of_rows = "bfloat16" if view.dtype == view.kv_dtype == "bfloat16" else "widened"
    gathers = "" if view.gathered else "no_"
    columns = "" if view.columns else "no_"
    return {
        _CALLS: "\n".join(("#pragma once\n#include <cstdint>\n", *(s.declaration() for s in kernel.structs))),
        "printed/columns_gradients.h": _including(f"columns/{columns}backward.h"),
        "printed/columns_mass.h": _including(f"columns/{columns}mass.h"),
        "printed/config.h": render("templates/cpu/config.h.jinja", view),
        "printed/documents.h": _including(f"documents/{view.documents}.h"),
        "printed/dtype.h": _dtypes(view, rows=kernel.by_row or bool(view.gathered)),
        "printed/gathers.h": _including(f"gathers/{gathers}forward.h"),
        "printed/inputs.h": _including(*(f"inputs/{header}.h" for header in view.inputs)),
        "printed/key_rows.h": _including(kernel.rows),
        "printed/keys.h": _including(kernel.keys),
        "printed/matrix_tiles.h": _including(f"matrix_tiles/{'amx' if operands == 'native' else 'none'}.h"),
        "printed/modifiers.h": render("templates/cpu/modifiers.h.jinja", view),
        "printed/operands.h": _including(f"operands/{operands}.h"),
        "printed/own_gradients.h": _including(f"gathers/{gathers}backward.h"),
        "printed/own_mass.h": _including(f"gathers/{gathers}mass.h"),
        "printed/packs.h": render("templates/cpu/packs.h.jinja", view),
        "printed/row_operands.h": _including(f"row_operands/{of_rows}.h"),
        "printed/tuned_decode.h": _tuned(
            KEYS_A_TASK=kernel.shares[0], MOST_TASKS=kernel.shares[1], ROW_TASKS=target.CPU_ROW_TASKS
        ),
        "printed/tuned_dot_products.h": _tuned(
            BYTES_AHEAD=target.CPU_BYTES_AHEAD,
            BYTES_NEAR=target.CPU_BYTES_NEAR,
            BYTES_A_BLOCK=target.CPU_BYTES_A_BLOCK,
            AT_ONCE=kernel.at_once,
        ),
        "printed/tuned_gradients.h": _tuned(CHUNK=target.CPU_GRADIENT_ROWS),
        "printed/tuned_store.h": _tuned(ELEMENTS_A_THREAD=target.CPU_ELEMENTS_A_THREAD),
    }


def _dtypes(view: CppView, *, rows: bool) -> str:
    """`rows`: with what widens stored ones in registers."""
    names = dict.fromkeys((view.dtype, view.kv_dtype, *((f"{view.kv_dtype}_rows",) if rows else ())))
    return (
        f"{_including(*(f'dtypes/{name}.h' for name in names))}\n"
        f"typedef {view.dtype.capitalize()} Element;  // of q and the output\n"
        f"typedef {view.kv_dtype.capitalize()} Stored;  // of k and v\n"
    )


def _tuned(**numbers: int) -> str:
    return f"#pragma once\nconstexpr int {', '.join(f'{name} = {number}' for name, number in numbers.items())};\n"


def _including(*paths: str) -> str:
    return "#pragma once\n" + "".join(f'#include "../{path}"\n' for path in paths)
