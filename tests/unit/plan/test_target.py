"""Tile sizes and launch shapes: what every target gets, and what no target may."""

from __future__ import annotations

import pytest

from sparsec.plan.target import Family, family, launch_shape, shared_memory_bytes, tile_sizes

GPUS = ("cuda:80", "cuda:86", "cuda:90", "cuda:100", "cuda:120", "hip:gfx942")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("cpu", Family.CPU),
        ("interpreter", Family.INTERPRETER),
        ("cuda:86", Family.AMPERE),
        ("cuda:90", Family.HOPPER),
        ("cuda:103", Family.BLACKWELL),
        ("cuda:120", Family.AMPERE),
        ("hip:gfx950", Family.CDNA),
    ],
)
def test_family(target: str, expected: Family) -> None:
    assert family(target) is expected


@pytest.mark.parametrize("target", ["", "cuda", "cuda:", "cuda:9x", "cuda:75", "hip:942", "cpu:1", "metal:3"])
def test_unknown_targets_are_refused(target: str) -> None:
    with pytest.raises(ValueError, match="expected a target"):
        tile_sizes(target, 64, "float32")


@pytest.mark.parametrize("target", GPUS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("head_dim", [8, 64, 72, 128, 256])
def test_stages_fit_shared_memory(target: str, dtype: str, head_dim: int) -> None:
    query_tile, key_tile, warps, stages = tile_sizes(target, head_dim, dtype)
    assert query_tile & (query_tile - 1) == 0 and key_tile & (key_tile - 1) == 0
    assert warps in (1, 2, 4, 8) and stages >= 1
    if target.startswith("cuda"):
        itemsize = 4 if dtype == "float32" else 2
        held = (query_tile + 2 * stages * key_tile) * head_dim * itemsize
        assert held <= shared_memory_bytes(target)


def test_descriptors_where_the_target_has_them() -> None:
    assert [launch_shape(gpu, 64, "bfloat16", 64, 64).tma for gpu in GPUS] == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("query_tile", [16, 32, 64, 128])
def test_small_tiles_get_few_warps(query_tile: int) -> None:
    assert launch_shape("cuda:90", 128, "bfloat16", query_tile, 64).warps == query_tile // 16
