"""Kernels that several modules will need -> built side by side before the first call that would wait for each in turn.

Invariant: what is built is what the calls would build, from the same source under the same key; a kernel that modules
share is built once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import TypeVar

from sparsec.backends import registry
from sparsec.runtime.kernel import registered
from sparsec.runtime.module import SparseAttention

Progress = Callable[[int, int], None]
"""Told how many builds are done, and of how many."""

_Result = TypeVar("_Result")


def side_by_side(
    works: Sequence[tuple[Hashable, Callable[[], _Result]]], progress: Progress | None = None
) -> tuple[_Result, ...]:
    """The result of each of `works`, (key, what to do), in order, as many at a time as this process has cores.

    A key that comes again is worked on once. `progress` is called in the caller's thread. Raises what a work raises, as
    soon as those that have begun have ended.
    """
    distinct = dict(works)
    results: dict[Hashable, _Result] = {}
    with ThreadPoolExecutor(max_workers=max(1, min(len(distinct), _cores()))) as pool:
        pending = {pool.submit(work): key for key, work in distinct.items()}
        try:
            for done, future in enumerate(as_completed(pending), start=1):
                results[pending[future]] = future.result()
                if progress is not None:
                    progress(done, len(pending))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return tuple(results[key] for key, _ in works)


def build_ahead(
    modules: Iterable[SparseAttention],
    *,
    gradients: bool = False,
    cache: bool = False,
    paged: bool = False,
    progress: Progress | None = None,
) -> None:
    """Builds the kernels of the modules' gradients, those over a cache, and those over pages, that their first calls
    would build.

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
            works.append((("cache", digest), partial(_build_cached, digest)))
        if paged:
            works.append((("paged", digest), partial(_build_paged, digest)))
    side_by_side(works, progress)


def _build_gradients(digest: str) -> None:
    registered(digest).backward.build()


def _build_cached(digest: str) -> None:
    registered(digest).cached.build()


def _build_paged(digest: str) -> None:
    registered(digest).paged.build()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
