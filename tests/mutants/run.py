"""Mutant by mutant: applies one operator to a copy of the tree and lets the tests of its part try to kill it.

    python tests/mutants/run.py                   every operator, about an hour on one core
    python tests/mutants/run.py --only NAME       that one alone (may be repeated); --part PART: those of a part
    python tests/mutants/run.py --write           and put each outcome into TABLE.md at once
    python tests/mutants/run.py --write --missing only the operators that the table lacks

Every test that killed a mutant has to pass without one, or the run ends with an error. The copy is made once, so the
tree may change meanwhile. Invariant: the checkout is read alone, but for TABLE.md under --write.
"""

from __future__ import annotations

import argparse
import compileall
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cache_operators
import cpp_operators
import lowering_operators
import triton_operators
from mutant import INTERPRETED, PARTS, Operator
from table import Outcome, markdown, merged, recorded, write

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("sparsec", "templates", "grammar", "tests", "examples", "pyproject.toml")
TABLE = ROOT / "tests/mutants/TABLE.md"
LEFT_OUT = ("golden", "results")
CRASHED = " ended by "
TIME_LIMIT = 900
"""Seconds; a mutant that takes longer is killed by that, and the table says so."""
OPERATORS: tuple[Operator, ...] = (
    *lowering_operators.OPERATORS,
    *cache_operators.OPERATORS,
    *cpp_operators.OPERATORS,
    *triton_operators.OPERATORS,
)


def copy_tree(source: Path, to: Path) -> Path:
    """A copy with the files' times, by which Python knows its compiled files."""
    to.mkdir()
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, to / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
        else:
            shutil.copy2(source / name, to / name)
    return to


@contextmanager
def mutated(tree: Path, operator: Operator) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = copy_tree(tree, Path(folder) / "tree")
        (copy / operator.file).write_text(operator.applied(tree), encoding="utf-8")
        yield copy


def killer(tree: Path, part: str, cache: Path, tests: tuple[str, ...]) -> str:
    """The first of the tests that fails in `tree`; empty if all pass. Raises RuntimeError if none could run."""
    interpreted = INTERPRETED if part.startswith("Triton") else {}
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", "-x", "-v", *tests]
    own = {
        "PYTHONPATH": str(tree),
        "XDG_CACHE_HOME": str(cache),
        "SPARSEC_PROFILE": "mutants",
        "OMP_NUM_THREADS": "1",
        **interpreted,
    }
    process = subprocess.Popen(
        command,
        cwd=tree,
        env={**os.environ, **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"no test within {TIME_LIMIT} s"
    if process.returncode == 0:
        return ""
    if failed := re.findall(r"^(\S+::.+?) (?:FAILED|ERROR)", output, re.MULTILINE):
        return str(failed[0]).removeprefix("tests/")
    if process.returncode < 0:
        running = re.findall(r"^(\S+::\S+)", output, re.MULTILINE)
        last = str(running[-1]).removeprefix("tests/") if running else part
        return f"{last}{CRASHED}{signal.Signals(-process.returncode).name}"
    raise RuntimeError(f"{part}: no test ran\n{output[-4000:]}")


def outcome(tree: Path, operator: Operator, cache: Path) -> Outcome:
    start = time.monotonic()
    with mutated(tree, operator) as copy:
        try:
            by = killer(copy, operator.part, cache, PARTS[operator.part])
        except RuntimeError as error:
            raise RuntimeError(f"{operator.name}: {error}") from error
    result = Outcome(operator.name, operator.file, by, operator.equivalent, time.monotonic() - start)
    print(f"{result.seconds:5.0f} s  {operator.name}: {by or 'SURVIVED'}", flush=True)
    return result


def outcomes(operators: list[Operator], jobs: int) -> Iterator[Outcome]:
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        tree, cache = copy_tree(ROOT, Path(folder) / "tree"), Path(folder) / "cache"
        compileall.compile_dir(tree / "sparsec", quiet=1)
        for part in dict.fromkeys(operator.part for operator in operators):
            own = [operator for operator in operators if operator.part == part]
            tests = set[str]()
            for result in pool.map(lambda operator: outcome(tree, operator, cache), own):
                tests |= {f"tests/{result.by.split(CRASHED)[0]}"} if "::" in result.by else set()
                yield result
            if tests and (by := killer(tree, part, cache, tuple(sorted(tests)))):
                raise SystemExit(f"{by} fails without any mutation")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", action="append", default=[], choices=[o.name for o in OPERATORS], metavar="NAME")
    options.add_argument("--part", action="append", default=[], choices=list(PARTS))
    options.add_argument("--jobs", type=int, default=1)
    options.add_argument("--write", action="store_true")
    options.add_argument("--missing", action="store_true")
    chosen = options.parse_args()
    known = {result.name for result in recorded(TABLE)} if chosen.missing else set[str]()
    every = not chosen.only and not chosen.part
    operators = [o for o in OPERATORS if every or o.name in chosen.only or o.part in chosen.part]
    found: list[Outcome] = []
    for result in outcomes([o for o in operators if o.name not in known], chosen.jobs):
        found.append(result)
        if chosen.write:
            write(TABLE, merged([o.name for o in OPERATORS], recorded(TABLE), found))
    print(markdown(found))
    return 0 if all(result.by or result.reason for result in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
