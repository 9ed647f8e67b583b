"""The structs by which Python calls a kernel: declared here once, printed as C and packed from Python.

Invariant: the C text and the packed bytes have the same fields in the same order, aligned as the machine's compiler
aligns them.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass

_SCALARS: dict[str, tuple[str, type[ctypes._SimpleCData[int]] | type[ctypes._SimpleCData[float]]]] = {
    "int32_t": ("i", ctypes.c_int32),
    "int64_t": ("q", ctypes.c_int64),
    "float": ("f", ctypes.c_float),
}


@dataclass(frozen=True, slots=True)
class Field:
    """`type` as in C; `length` of an array, 0 for one that is none."""

    type: str
    name: str
    length: int = 0
    comment: str = ""


@dataclass(frozen=True, slots=True)
class CallStruct:
    name: str
    comment: str
    fields: tuple[Field, ...]

    def declaration(self) -> str:
        """The struct in C, once in a translation unit."""
        guard = self.name.upper()
        lines = [f"#ifndef {guard}", f"#define {guard}", f"struct {self.name} {{  // {self.comment}"]
        for field in self.fields:
            array = f"[{field.length}]" if field.length else ""
            comment = f"  // {field.comment}" if field.comment else ""
            lines.append(f"  {field.type} {field.name}{array};{comment}")
        return "\n".join((*lines, "};", "#endif", ""))

    def structure(self) -> type[ctypes.Structure]:
        """The struct as ctypes has it; pointers are addresses."""
        fields = []
        for field in self.fields:
            each = ctypes.c_void_p if field.type.endswith("*") else _SCALARS[field.type][1]
            fields.append((field.name, each * field.length if field.length else each))
        return type(self.name, (ctypes.Structure,), {"_fields_": fields})

    @property
    def numbers(self) -> int:
        """How many the packer takes."""
        return sum(field.length or 1 for field in self.fields)

    def packer(self, fields: slice = slice(None)) -> struct.Struct:
        """What packs the fields, an array's numbers one by one, in less time than a ctypes structure takes. Those of a
        part follow what packs the others before them."""
        codes = ("P" if field.type.endswith("*") else _SCALARS[field.type][0] for field in self.fields[fields])
        counts = (field.length or 1 for field in self.fields[fields])
        return struct.Struct("@" + "".join(f"{count}{code}" for count, code in zip(counts, codes, strict=True)))


def _each(of: str, names: str, length: int = 0) -> tuple[Field, ...]:
    return tuple(Field(of, name, length) for name in names.split())


LIST = CallStruct(
    "sparsec_list",
    "a table of draws, int32 [rows, blocks, width]",
    (
        Field("const int32_t*", "entries"),
        Field("int64_t", "first", comment="its first query block"),
        Field("int64_t", "blocks"),
    ),
)

LOOKUP = CallStruct(
    "sparsec_lookup",
    "what an input says, contiguous [batch, heads, rows, columns]; batch and heads may be 1",
    (
        Field("const void*", "data", comment="int32, or int64 of lists, or uint8 of cells and ancestors"),
        *_each("int64_t", "batch heads rows columns"),
        Field("int64_t", "first", comment="of prefix counts, the first number; of lists, whether they are int64"),
    ),
)

MARKS = CallStruct(
    "sparsec_marks",
    "what an input says of the keys of a call, [batch, heads, n]; batch and heads may be 1",
    (Field("const uint8_t*", "data"), Field("int64_t", "stride", 3), *_each("int64_t", "batch heads")),
)

KEPT = CallStruct(
    "sparsec_kept",
    "lists of kept keys",
    (
        Field("void*", "keys", comment="[rows, D]"),
        Field("void*", "values", comment="[rows, DV]"),
        Field("int32_t*", "entries", comment="[1 + words, rows]: positions, then marks"),
        Field("int64_t", "rows"),
        Field("int64_t", "room", comment="rows that lists may have: those after it may be read"),
        Field("int32_t*", "lists", comment="[B, G, 3]: base, capacity and count"),
        Field("const sparsec_marks*", "marks", comment="of each input of kind tokens"),
    ),
)

_INPUTS = Field("const sparsec_lookup*", "inputs", comment="two for each test of an input")

_SHAPES = (
    *_each("int64_t", "batch n_q n_k"),
    Field("int64_t", "q0", comment="the position of the first query"),
    Field("const sparsec_list*", "lists"),
    _INPUTS,
)
_DOCUMENTS = (
    Field("const int32_t*", "cu_seqlens", comment="[documents + 1], for documents"),
    Field("int64_t", "documents"),
)
_SINK = Field("const float*", "sink", comment="[H], for a learned sink")
_BIAS = (
    Field("const float*", "key_bias", comment="[b, x, keys], for a key bias; of b = 1 the stride is 0"),
    *_each("int64_t", "bias_heads bias_keys"),
    Field("int64_t", "bias_stride", 3),
)
_RUN = (Field("float", "scale"), Field("int32_t", "threads"))

FORWARD = CallStruct(
    "sparsec_call",
    "strides in elements; q [B, H, Nq, D], k [B, G, Nk, D]; out, v: DV for D; lse [B, H, Nq]",
    (
        *_each("const void*", "q k v"),
        Field("void*", "out"),
        Field("float*", "lse"),
        *_each("int64_t", "q_stride k_stride v_stride out_stride", 4),
        Field("int64_t", "lse_stride", 3),
        *_SHAPES,
        _SINK,
        *_BIAS,
        *_DOCUMENTS,
        *_RUN,
    ),
)

BACKWARD = CallStruct(
    "sparsec_backward_call",
    "strides in elements; shapes as in the forward call; dq, dk, dv are contiguous",
    (
        *_each("const void*", "grad_out q k v out"),
        Field("const float*", "lse"),
        Field("const float*", "grad_lse", comment="null for zeros"),
        *_each("void*", "dq dk dv"),
        *_each("int64_t", "grad_out_stride q_stride k_stride v_stride out_stride", 4),
        *_each("int64_t", "lse_stride grad_lse_stride", 3),
        *_SHAPES,
        _SINK,
        *_BIAS,
        Field("float*", "dsink", comment="[H], likewise"),
        Field("float*", "dbias", comment="[B, H, Nk], likewise; null: not asked for"),
        *_DOCUMENTS,
        *_RUN,
    ),
)

MASS = CallStruct(
    "sparsec_mass_call",
    "strides in elements; shapes as in the forward call; mass: [B, H, Nk], contiguous",
    (
        *_each("const void*", "q k"),
        Field("const float*", "lse"),
        Field("float*", "mass"),
        *_each("int64_t", "q_stride k_stride", 4),
        Field("int64_t", "lse_stride", 3),
        *_SHAPES,
        _SINK,
        *_BIAS,
        *_DOCUMENTS,
        *_RUN,
    ),
)

PAGED = CallStruct(
    "sparsec_paged_call",
    "strides in elements; q [1, H, tokens, D], k [pages, G, page size, D]; out, v: DV for D",
    (
        *_each("const void*", "q k v"),
        Field("void*", "out", comment="contiguous, and so are all that have no stride here"),
        Field("float*", "lse", comment="[tokens, H]"),
        *_each("int64_t", "q_stride k_stride v_stride", 4),
        *_each("int64_t", "tokens pages page_size requests"),
        Field("const int32_t*", "table", comment="[requests, most_pages]: any numbers"),
        Field("int64_t", "most_pages"),
        Field("int64_t", "longest", comment="the most tokens of a request for which there are pages, and draws"),
        Field("const int32_t*", "starts", comment="[requests + 1]: rows of q"),
        Field("const int32_t*", "lengths", comment="[requests]: tokens with those of the call, the last ones"),
        Field("int64_t", "few", comment="the most queries of a request for the kernel of single rows"),
        Field("const sparsec_list*", "lists"),
        _INPUTS,
        _SINK,
        *_BIAS,
        *_RUN,
    ),
)

CACHED = CallStruct(
    "sparsec_cached_call",
    "strides in elements; q [B, H, N, D], k [B, G, N, D]; out, v: DV for D; lse [B, H, N]",
    (
        *_each("const void*", "q k v"),
        Field("void*", "keys", comment="the cache, [B, slots, D]"),
        Field("void*", "values", comment="likewise, [B, slots, DV]"),
        Field("void*", "out", comment="contiguous, and so are all that have no stride here"),
        Field("float*", "lse"),
        *_each("int64_t", "q_stride k_stride v_stride", 4),
        *_each("int64_t", "batch n slots"),
        Field("int64_t", "longest", comment="the most tokens of a sequence after the call: tables of draws end there"),
        Field("int32_t*", "lengths", comment="[B]: tokens in the cache"),
        Field("const int32_t*", "counts", comment="[B]: those among the call's n, which are the last; null: n each"),
        Field("int64_t*", "state", comment="[2, B], or null: once stored, tokens are counted here and in lengths"),
        Field("const int32_t*", "places", comment="[G, regions, 2]: base and capacity of a group's regions"),
        Field("const sparsec_kept*", "kept", comment="null for a cache without lists of kept keys"),
        Field("float*", "mass", comment="[B, H, mass_keys], to which the mass of keys is added; null: not asked for"),
        Field("int64_t", "mass_keys"),
        Field("const uint8_t*", "mass_groups", comment="[G], which groups get it; null: all"),
        Field("const sparsec_list*", "lists"),
        _INPUTS,
        _SINK,
        *_BIAS,
        *_RUN,
    ),
)
