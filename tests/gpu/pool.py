"""Jobs -> what came of each, in worker processes that are left behind when the step has to end.

Invariant: what a job raises, or a worker that dies, is that job's outcome; only the time may cut the others off.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from multiprocessing import get_context
from typing import Any

from step import Given

from sparsec.diagnostics.model import in_one_line


def workers(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"))


def run_all(
    pool: ProcessPoolExecutor, function: Callable[..., str], jobs: Iterable[tuple[Any, ...]], given: Given
) -> int:
    """Prints of each job (the arguments of `function`), as it ends, what it returned or raised; how many raised.

    Ends this process, with status 0, where the step's time is up before all are done: a worker in the middle of a
    compile would be waited for.
    """
    running = {pool.submit(_told, function, job): job for job in jobs}
    failed, done = 0, 0
    with suppress(TimeoutError):
        for each in as_completed(running, timeout=given.left()):
            died = each.exception()
            said, raised = (in_one_line(died), True) if died else each.result()
            failed, done = failed + raised, done + 1
            if said:
                print(*running[each], said, flush=True)
    print(f"{done} of {len(running)} done, {failed} failed", flush=True)
    if done < len(running):
        pool.shutdown(wait=False, cancel_futures=True)
        os._exit(0)
    return failed


def _told(function: Callable[..., str], job: tuple[Any, ...]) -> tuple[str, bool]:
    """What the job said, and whether it raised; as text, for not every exception comes through between processes."""
    try:
        return function(*job), False
    except Exception as error:
        return in_one_line(error), True
