"""A resolved pattern -> every text that sparsec writes for it: sources, launches, layout, for the CPU and a GPU.

Invariant: a pattern without a cache has no text of one, and says why in its layout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch

from sparsec.backends.cpu.emit import emit_cpp, emit_cpp_backward
from sparsec.backends.cpu.emit_cached import emit_cpp_cached
from sparsec.backends.triton.emit import emit_triton, emit_triton_backward
from sparsec.backends.triton.emit_cached import emit_triton_cached
from sparsec.pipeline import Lowered
from sparsec.plan.kv.cached import NoCache
from sparsec.plan.launch import Launches
from sparsec.runtime.build.manifest import launch_data, layout_data
from sparsec.runtime.request import Request
from sparsec.sema.model import ResolvedPattern

HEAD_DIM = 32


def generated(heads: ResolvedPattern, dtype: torch.dtype) -> Mapping[str, str]:
    """The texts by what they are."""
    request = Request(Lowered(heads), HEAD_DIM, HEAD_DIM, dtype)
    try:
        layout, has_cache = layout_data(request.lowered.layout), True
    except NoCache as error:
        layout, has_cache = layout_data(str(error)), False
    texts = {"layout": json.dumps(layout)}
    for target, forward, backward, cached in (
        ("cpu", emit_cpp, emit_cpp_backward, emit_cpp_cached),
        ("cuda:90", emit_triton, emit_triton_backward, emit_triton_cached),
    ):
        of = request.compilation(target)
        plans = of.forward, of.backward, of.cached if has_cache else None
        texts |= {f"{target} forward": forward(plans[0]), f"{target} backward": backward(plans[1])}
        texts[f"{target} launch"] = json.dumps(launch_data(Launches.of(*plans)))
        if plans[2] is not None:
            texts[f"{target} cached"] = cached(*plans[2])
    return texts
