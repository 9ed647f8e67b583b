"""Operators on the templates of the Triton kernels: forward, backward and over a cache."""

from __future__ import annotations

from mutant import Operator


def _of(part: str, *operators: tuple[str, str, str, str]) -> tuple[Operator, ...]:
    return tuple(
        Operator(f"Triton: {name}", part, file if "/" in file else f"templates/triton/{file}.py.jinja", before, after)
        for name, file, before, after in operators
    )


FORWARD = _of(
    "Triton forward",
    ("sums not rescaled", "softmax", "{{ acc }} * decay[:, None]", "{{ acc }}"),
    ("no mask", "softmax", '"live" if trips.masked else "start < nk"', '"start < nk"'),
    ("heads dealt out to groups in turn", "query_tile", "group = head // {{ view.group_size }}",
     "group = head % {{ view.kv_heads }}"),
)  # fmt: skip

SCORES = _of(
    "Triton scores",
    ("softcap's derivative", "tile_loop", "(1.0 - bent * bent)", "(1.0 - bent)"),
    ("alibi slopes from head 0", "tile_loop", "tl.load(head_slopes + head)", "tl.load(head_slopes)"),
)  # fmt: skip

DOCUMENTS = _of(
    "Triton documents",
    ("rows of the document before", "query_tile", "i0 = tl.maximum(tile_start, begin)",
     "i0 = tl.maximum(tile_start, 0)"),
    ("keys of the document before", "sparsec/backends/triton/emit.py",
     "(j >= begin) & (j < end)", "(j >= 0) & (j < end)"),
)  # fmt: skip

BACKWARD = _of(
    "Triton backward",
    ("gradient of the LSE with the other sign", "row_sums", "sums -= tl.load(grad_lse", "sums += tl.load(grad_lse"),
    ("delta left out", "tile_loop", "(slopes - {{ deltas }})", "slopes"),
    ("keys of the group's first head alone", "key_tile", '"0, " ~ view.group_size', '"0, 1"'),
)  # fmt: skip

CACHED = _of(
    "Triton cached",
    ("the first new key from the cache", "cached_keys", "old = key < length", "old = key <= length"),
    ("parts merged without rescaling", "cached_decode", "acc_{{ n }} * decay + tl.sum(rows",
     "acc_{{ n }} + tl.sum(rows"),
    ("padding stored", "cached_store", "(row < nq) & (j >= length) &", "(row < nq) &"),
)  # fmt: skip

OPERATORS = (*FORWARD, *SCORES, *DOCUMENTS, *BACKWARD, *CACHED)
