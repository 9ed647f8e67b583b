"""The pytest plugin: with `--sparse`, `.sparse` files are collected, a test for each property of each pattern.

Invariant: without `--sparse` it does nothing; importing it imports neither torch nor hypothesis.
"""

from __future__ import annotations

import shlex
from argparse import ArgumentTypeError
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sparsec.backends.registry import compared
from sparsec.diagnostics.model import SparsecError
from sparsec.program import Pattern, load

if TYPE_CHECKING:
    from sparsec.testing.verify import Subject

HEADS, HEAD_DIM = 8, 64
"""As `sparsec verify` has them where nothing else is said."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sparsec", "attention patterns")
    group.addoption("--sparse", action="store_true", help="collect .sparse files, and verify their patterns")
    group.addoption(
        "--sparse-examples", type=_at_least_one, default=20, metavar="N", help="cases drawn for each property"
    )
    group.addoption(
        "--sparse-target",
        choices=compared(),
        metavar="TARGET",
        help=f"{', '.join(compared())}; the machine's best if left out",
    )


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    """Of a target that this machine cannot run one usage error, not one for each test."""
    target = config.getoption("--sparse-target")
    if not config.getoption("--sparse") or target is None:
        return
    from sparsec.runtime.devices import default_device
    from sparsec.testing.verify import check_runs

    try:
        check_runs(target, default_device(target))
    except SparsecError as error:
        raise pytest.UsageError(f"--sparse-target {target}: {error}") from None


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix != ".sparse" or not parent.config.getoption("--sparse"):
        return None
    return SparseFile.from_parent(parent, path=file_path)


class SparseFile(pytest.File):
    """A `.sparse` file; one that does not check is a collection error with its diagnostics."""

    def collect(self) -> Iterator[pytest.Item]:
        from sparsec.testing.cases import CHECKS

        try:
            program = load(self.path)
        except SparsecError as error:
            raise self.CollectError(str(error)) from error
        for pattern in map(program.pattern, program.patterns):
            for check in CHECKS:
                yield PropertyItem.from_parent(self, name=f"{pattern.name}:{check}", pattern=pattern, check=check)


class PropertyItem(pytest.Item):
    """One property of one pattern."""

    def __init__(self, *, pattern: Pattern, check: str, **more: Any) -> None:
        super().__init__(**more)
        self.pattern, self.check = pattern, check

    def runtest(self) -> None:
        from sparsec.testing.verify import verify_one

        subject = _subject(self.pattern, self.config.getoption("--sparse-target"))
        result = verify_one(subject, self.check, examples=self.config.getoption("--sparse-examples"))
        if result.absent:
            pytest.skip(result.absent)
        if result.failure is not None:
            case = result.failure.case
            words = ["sparsec", "verify", str(self.path), "--pattern", self.pattern.name]
            again = shlex.join([*words, "--target", subject.attn.target, "--case", str(case)])
            raise AssertionError(f"{result.failure.message}\n{case.described}\nto run it again: {again}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Of a property that does not hold, what differs and no traceback."""
        if isinstance(excinfo.value, AssertionError | SparsecError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.name


@cache
def _subject(pattern: Pattern, target: str | None) -> Subject:
    """Compiled once for the properties of a pattern."""
    from sparsec.runtime.compile import compile
    from sparsec.runtime.devices import default_device
    from sparsec.testing.verify import Subject

    heads = pattern.resolve(*((HEADS, None) if pattern.heads is None else (None, None)))
    device = default_device(target)
    attn = compile(pattern, heads=heads.heads, kv_heads=heads.kv_heads, head_dim=HEAD_DIM, device=device, target=target)
    return Subject.of(heads, attn, device)
