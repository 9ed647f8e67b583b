"""A resolved pattern -> every text that sparsec writes for it: sources, launches, layout, for the CPU and a GPU.

Invariant: a pattern without a cache has no text of one, and says why in its layout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch

from sparsec.backends.cpu import cached as cpu_cached
from sparsec.backends.cpu.emit import emit_cpp, emit_cpp_backward
from sparsec.backends.cpu.emit_cached import emit_cpp_cached
from sparsec.backends.triton.emit import emit_triton, emit_triton_backward
from sparsec.backends.triton.emit_cached import emit_triton_cached
from sparsec.plan.kv.cached import NoCache, cache_layout
from sparsec.runtime.build.manifest import Plans, launch_data, layout_data
from sparsec.runtime.compile import backward_plan, cached_plans, plan_request
from sparsec.runtime.request import Request
from sparsec.sema.model import ResolvedPattern

HEAD_DIM = 32


def generated(heads: ResolvedPattern, dtype: torch.dtype) -> Mapping[str, str]:
    """The texts by what they are."""
    request = Request(heads, HEAD_DIM, dtype)
    try:
        layout = layout_data(cache_layout(heads))
        of_cache = {
            "cpu": cpu_cached.cached_plans(heads, HEAD_DIM, str(dtype).removeprefix("torch.")),
            "cuda:90": cached_plans(request, "cuda:90"),
        }
    except NoCache as error:
        layout, of_cache = layout_data(str(error)), {}
    texts = {"layout": json.dumps(layout)}
    for target, forward, backward, cached in (
        ("cpu", emit_cpp, emit_cpp_backward, emit_cpp_cached),
        ("cuda:90", emit_triton, emit_triton_backward, emit_triton_cached),
    ):
        plans = Plans(plan_request(request, target), backward_plan(request, target), of_cache.get(target))
        assert plans.backward is not None
        texts |= {f"{target} forward": forward(plans.forward), f"{target} backward": backward(plans.backward)}
        texts[f"{target} launch"] = json.dumps(launch_data(plans))
        if plans.cached is not None:
            texts[f"{target} cached"] = cached(*plans.cached)
    return texts
