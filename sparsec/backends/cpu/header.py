"""The libraries of a folder -> a header for C and C++: the structs of their calls, and their entry points.

Invariant: the structs are those that the libraries' sources have, from the same declarations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sparsec.backends.cpu import calls
from sparsec.backends.cpu.calls import CallStruct
from sparsec.pipeline import Compilation
from sparsec.plan.launch import LaunchPlan

HEADER = "kernels.h"
_BESIDE = (calls.LIST, calls.LOOKUP, calls.MARKS, calls.KEPT)
"""What calls point to."""
_TAKES = {"forward": calls.FORWARD, "backward": calls.BACKWARD, "mass": calls.MASS}
_TAKES |= dict.fromkeys(("attend_paged_chunks", "attend_paged_rows"), calls.PAGED)
"""By the entry point; all others are of a cache."""


def header(compilation: Compilation, libraries: Iterable[tuple[str, Sequence[str]]]) -> str:
    """`libraries`: the name of each, and those of its entry points without what all begin with."""
    found = tuple((library, tuple(entries)) for library, entries in libraries)
    structs = dict.fromkeys(_TAKES.get(entry, calls.CACHED) for _, entries in found for entry in entries)
    shapes = {
        "heads": compilation.pattern.heads,
        "kv_heads": compilation.pattern.kv_heads,
        "head_dim": compilation.head_dim,
        "value_dim": compilation.value_dim,
    }
    scale = LaunchPlan.of(compilation.forward).scale(None)
    lines = [
        "// The kernels of this folder, for C and C++. H is heads, G kv_heads, D head_dim and DV value_dim;",
        f"// q, k, v and out are {compilation.dtype}, lse is float. layout.json has the regions of a cache.",
        "#ifndef SPARSEC_KERNELS_H",
        "#define SPARSEC_KERNELS_H",
        "#include <stdint.h>",
        "",
        f"enum {{ {', '.join(f'sparsec_{name} = {value}' for name, value in shapes.items())} }};",
        f"#define SPARSEC_SCALE {scale!r}f  // the pattern's; a call may have another",
        "",
        *(f"typedef struct {struct.name} {struct.name};" for struct in (*_BESIDE, *structs)),
        "",
        *(_declared(struct) for struct in (*_BESIDE, *structs)),
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "// Each returns 0, 1 when memory ran out, or 2 for lengths or places that the tensors of a cache do not have.",
    ]
    for library, entries in found:
        lines.append(f"// {library}")
        lines += [f"int sparsec_{each}(const {_TAKES.get(each, calls.CACHED).name}* call);" for each in entries]
    return "\n".join((*lines, "#ifdef __cplusplus", "}", "#endif", "#endif", ""))


def _declared(struct: CallStruct) -> str:
    """Without guards, which this file has once."""
    return "\n".join(line for line in struct.declaration().splitlines() if not line.startswith("#")) + "\n"
