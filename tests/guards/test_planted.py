"""Mistakes planted in the text of kernels: guard pages and sanitizers find each, in the kernel that has it."""

from __future__ import annotations

from functools import cache

import pytest
from findings import Job, Report, Settings, find, sanitizers
from guarded import GUARD_PAGES, HEAP
from plants import PLANTS, Plant

PAGES = [name for name, plant in PLANTS.items() if plant.side in GUARD_PAGES]
SANITIZED = {
    "a row is read one element too far": "AddressSanitizer: heap-buffer-overflow",
    "a signed sum overflows": "runtime error: signed integer overflow",
    "scratch is written past an array's end": "runtime error: index 2 out of bounds",
}

DENSE = "dense.sparse dense, head_dim 20, value_dim 20, torch.float32"


def job(name: str, side: str) -> Job:
    plant: Plant = PLANTS[name]
    return Job(Settings(plant.target, (side,), lengths=1, patterns=("dense",), kernels=(plant.kernel,)), name)


@cache
def by_guard_pages(target: str) -> dict[str, Report]:
    names = [name for name in PAGES if PLANTS[name].target == target]
    return dict(zip(names, find([job(name, PLANTS[name].side) for name in names]), strict=True))


@cache
def by_sanitizers() -> dict[str, Report]:
    environment = sanitizers()
    if environment is None:
        pytest.skip("expected g++ with libasan, found none")
    return dict(zip(SANITIZED, find([job(name, HEAP) for name in SANITIZED], environment), strict=True))


@pytest.mark.parametrize("name", PAGES)
def test_guard_pages_find(name: str) -> None:
    plant = PLANTS[name]
    report = by_guard_pages(plant.target)[name]
    assert report.findings, f"{name}: not found in {report}"
    for finding in report.findings:
        assert finding.startswith(f"{plant.kernel} kernel of {DENSE}, "), finding
        assert f"guard {plant.side}: exit status -11" in finding, finding


@pytest.mark.parametrize("name", SANITIZED)
def test_sanitizers_find(name: str) -> None:
    report = by_sanitizers()[name]
    assert any(SANITIZED[name] in finding for finding in report.findings), f"{name}: not found in {report}"
