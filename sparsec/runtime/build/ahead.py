"""Kernels that several modules will need -> built side by side before the first call that would wait for each in turn.

Invariant: what is built is what the calls would build, from the same source under the same key; a kernel that modules
share is built once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import partial

import torch

from sparsec.backends import registry
from sparsec.runtime.build.at_once import Progress, side_by_side
from sparsec.runtime.kernel import registered
from sparsec.runtime.kv.stored import kv_dtype_of
from sparsec.runtime.module import SparseAttention


def build_ahead(
    modules: Iterable[SparseAttention],
    *,
    gradients: bool = False,
    cache: bool = False,
    kv_dtype: str | None = None,
    paged: bool = False,
    progress: Progress | None = None,
) -> None:
    """Builds the kernels of the modules' gradients, those over a cache (of that `kv_dtype`), and those over pages, that
    their first calls would build.

    Modules of a backend with an ahead-of-call compiler have some; others are left as they are. Raises NoCache where a
    pattern has no cache, BuildError if the compiler fails.
    """
    works: list[tuple[Hashable, Callable[[], object]]] = []
    for module in modules:
        if not registry.BACKENDS[module.target].ahead:
            continue
        digest = module.kernel_digest
        if gradients:
            works.append((("gradients", digest), partial(_build_gradients, digest)))
        if cache:
            works.append((("cache", digest), partial(_build_cached, digest, module.dtype, kv_dtype)))
        if paged:
            works.append((("paged", digest), partial(_build_paged, digest)))
    side_by_side(works, progress)


def _build_gradients(digest: str) -> None:
    registered(digest).backward.build()


def _build_cached(digest: str, dtype: torch.dtype, kv_dtype: str | None) -> None:
    registered(digest).over_cache(dtype, kv_dtype_of(kv_dtype, dtype), lists=False).build()


def _build_paged(digest: str) -> None:
    registered(digest).paged.build()
