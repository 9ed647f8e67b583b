"""The memory of a cache's arenas on a CPU."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest
import torch

from sparsec.runtime.kv.arena import LARGE_PAGE, arena

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, LARGE_PAGE // 128, 3 * LARGE_PAGE // 128 + 5])
def test_an_arena_holds_zeros_and_what_is_written(rows: int, dtype: torch.dtype) -> None:
    found = arena((2, rows, 32), dtype, CPU)
    assert found.shape == (2, rows, 32) and found.dtype == dtype and found.is_contiguous()
    assert not found.any()
    found.copy_(torch.arange(rows * 64).remainder(251).view(2, rows, 32))
    assert torch.equal(found.flatten().float(), torch.arange(rows * 64).remainder(251).float())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells of a mapping")
@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="a system without large pages")
def test_a_large_arena_asks_for_large_pages_of_its_own() -> None:
    """Shared mappings have none; and a process that forks must not share its cache with its children."""
    found = arena((1, LARGE_PAGE // 64, 64), torch.float32, CPU)
    start, stop = found.data_ptr(), found.data_ptr() + found.nbytes
    assert start % LARGE_PAGE == 0
    flags, access, within = [], "", False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            low, _, high = name.partition("-")
            within = int(low, 16) <= start and stop <= int(high, 16)
            access = rest.split()[0] if within else access
        elif within and name == "VmFlags:":
            flags = rest.split()
    assert access.endswith("p"), access
    if Path("/sys/kernel/mm/transparent_hugepage").is_dir():
        assert "hg" in flags, flags
