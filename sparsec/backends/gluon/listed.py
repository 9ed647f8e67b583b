"""Lists of keys for all queries -> their rows one after another, as TMA takes them: launches of one call.

Invariant: how many rows there are follows from shapes, never from what a list holds; each is written or 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from sparsec.backends.gluon.emit import LISTED_KEYS
from sparsec.backends.triton.call import LaunchCall
from sparsec.backends.triton.launches import VECTOR_BYTES, KernelEntry, derived, launch
from sparsec.sema.model import Documents


def listed_rows(
    entries: Mapping[int, KernelEntry], call: LaunchCall, k: Tensor, v: Tensor, heads: int
) -> dict[str, Tensor]:
    """By what kernels call them the rows of each list's keys and of their values, [B, x, rows, columns].

    `k`, `v`: as a descriptor takes them. Of x lists, or KV groups if these are more, row r is that of the list's entry
    r; where positions count from the start of a document, of the document's row r. What is no key is 0, as is all
    that lies between documents.
    """
    found = dict[str, Tensor]()
    for number, entry in entries.items():
        given = {**call.numbers, "k": k, "v": v, **_strides(k, "k"), **_strides(v, "v")}
        lists, listed = (int(given[f"input_{number}_{each}"]) for each in ("heads", "listed"))  # type: ignore[call-overload]  # numbers
        restart = call.documents is Documents.RESTART
        rows = call.n_keys if restart and listed else listed
        shape = call.batch, max(lists, call.kv_heads), max(rows, 1)
        make = partial(_new, shape, (k.shape[3], v.shape[3]), k.dtype, k.device, zero=restart or not rows)
        keys, values = derived(call.recorded, make)
        made = {f"listed_keys_{number}": keys, f"listed_values_{number}": values}
        found, parts = found | made, -(-rows // LISTED_KEYS)
        places = call.places(LISTED_KEYS, parts, given) if restart and rows else call.batch * parts
        launch(entry, places * heads, {**given, **made, "parts": parts}, call.recorded)
    return found


def _new(
    shape: tuple[int, int, int], columns: tuple[int, int], dtype: torch.dtype, device: torch.device, *, zero: bool
) -> tuple[Tensor, Tensor]:
    make = torch.zeros if zero else torch.empty
    keys, values = (make((*shape, each), dtype=dtype, device=device) for each in columns)
    return keys, values


def _strides(tensor: Tensor, name: str) -> dict[str, object]:
    vector = VECTOR_BYTES // tensor.element_size()
    strides = zip(("batch", "head", "row"), tensor.stride(), strict=False)
    return {"VECTOR": vector, **{f"{name}_{of}": stride // vector for of, stride in strides}}
