"""Every kernel of the examples and of `more.sparse` touches its own tensors alone; guard pages and sanitizers tell."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest
from findings import EXAMPLES, KERNELS, MORE, Job, Report, Settings, find, sanitizers
from guarded import GUARD_PAGES, HEAP
from guarded_kernels import BESIDE, INPUTS, beside

import sparsec

WITHOUT_CACHE = {"bigbird", "longformer", "packed_window", "packed_s2", "sasa", "drawn_beside_dilated"}
INPUTS_WITHOUT_CACHE = ("run-time ranges", "pages")
PASSES = ("forward", "backward", "mass")
OVER_CACHE = ("chunk", "rows", "store")
NIGHTLY = os.environ.get("SPARSEC_PROFILE") == "nightly"


def check(reports: Iterable[Report], *, all_of: tuple[str, ...] = KERNELS) -> None:
    """No finding, and of every pattern of these files the kernels `all_of` that it has."""
    reports = list(reports)
    findings = [finding for report in reports for finding in report.findings]
    assert not findings, "\n\n".join(findings)
    ran = {(name.split(",")[0].split("-")[0], kernel) for report in reports for name, kernel in report.kernels}
    files = (*EXAMPLES.glob("*.sparse"), MORE)
    examples = [(path.name, name) for path in files for name in sparsec.load(path).patterns]
    for kernel in all_of:
        having = {f"{file} {name}" for file, name in examples if kernel in PASSES or name not in WITHOUT_CACHE}
        names = {name for name, ran_kernel in ran if ran_kernel == kernel}
        with_inputs = {name for name in names if name.startswith(BESIDE)}
        assert names - with_inputs == having
        without = () if kernel in PASSES else INPUTS_WITHOUT_CACHE
        assert len(with_inputs) in (0, len(INPUTS) - len(without))
    print("; ".join(f"{len(report.kernels)} kernels, {report.calls} calls" for report in reports))


def test_cpu_kernels_keep_off_guard_pages() -> None:
    settings = Settings("cpu", GUARD_PAGES, variants=3) if NIGHTLY else Settings("cpu", GUARD_PAGES, lengths=2)
    reports = find([Job(settings)])
    check(reports)
    assert {name.split(",")[0] for name, _ in reports[0].kernels if name.startswith(BESIDE)} == set(map(beside, INPUTS))


def test_cpu_kernels_over_pages_keep_off_guard_pages() -> None:
    """Whatever numbers the table holds; and off the pages that are dead."""
    some = () if NIGHTLY else ("s2_by_head", "longgen_sink", "bloom", "short_window")
    reports = find([Job(Settings("cpu", GUARD_PAGES, patterns=some, kernels=("paged",)))])
    check(reports, all_of=())
    assert len(reports[0].kernels) >= 4 and {kernel for _, kernel in reports[0].kernels} == {"paged"}


def test_cpu_kernels_over_int8_keep_off_guard_pages() -> None:
    some = () if NIGHTLY else ("s2_by_head", "gemma2_full", "short_window")
    job = Job(Settings("cpu", GUARD_PAGES, patterns=some, kernels=OVER_CACHE, kv_dtype="int8"))
    reports = find([job])
    check(reports, all_of=())
    assert {kernel for _, kernel in reports[0].kernels} == set(OVER_CACHE)


def test_triton_kernels_keep_off_guard_pages() -> None:
    """In the interpreter, which checks no bounds."""
    some = () if NIGHTLY else ("bigbird", "bloom", "packed_s2")
    reports = find([Job(Settings("triton", GUARD_PAGES, lengths=2 if NIGHTLY else 1, patterns=some))])
    own = tuple(kernel for kernel in KERNELS if kernel != "mass")
    check(reports, all_of=own if NIGHTLY else ())
    assert {kernel for _, kernel in reports[0].kernels} == set(own)


@pytest.mark.skipif(not NIGHTLY, reason="SPARSEC_PROFILE=nightly builds every kernel with sanitizers")
def test_sanitizers_find_nothing() -> None:
    environment = sanitizers()
    if environment is None:
        pytest.skip("expected g++ with libasan, found none")
    kernels = (*KERNELS, "paged")
    check(find([Job(Settings("cpu", (HEAP,), lengths=3, optimise=1, kernels=kernels))], environment))
    narrow = Settings("cpu", (HEAP,), lengths=3, optimise=1, kernels=OVER_CACHE, kv_dtype="int8")
    check(find([Job(narrow)], environment), all_of=())
