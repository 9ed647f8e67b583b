"""Works that do not wait for each other -> their results, as many at a time as this process has cores.

Invariant: the results are those of doing the works in order, one by one; equal works are done once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

Progress = Callable[[int, int], None]
"""Told how many works are done, and of how many."""

_Result = TypeVar("_Result")


def side_by_side(
    works: Sequence[tuple[Hashable, Callable[[], _Result]]], progress: Progress | None = None
) -> tuple[_Result, ...]:
    """The result of each of `works`, (key, what to do), in order, as many at a time as this process has cores.

    A key that comes again is worked on once. `progress` is called in the caller's thread, first with none done. Raises
    what a work raises, as soon as those that have begun have ended.
    """
    distinct = dict(works)
    results: dict[Hashable, _Result] = {}
    if progress is not None and distinct:
        progress(0, len(distinct))
    with ThreadPoolExecutor(max_workers=max(1, min(len(distinct), cores()))) as pool:
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


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
