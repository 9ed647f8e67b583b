"""Tile sizes and launch shapes: what every target gets, and what no target may."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from unittest.mock import patch

import pytest

from sparsec.plan.picks import Family, Kind, Pick
from sparsec.plan.target import (
    LaunchShape,
    backward_shape,
    backward_tile_sizes,
    cached_shape,
    cached_tile_sizes,
    decode_shape,
    decode_tile_sizes,
    family,
    launch_shape,
    shared_memory_bytes,
    tile_sizes,
    transposed_tile_sizes,
)


@pytest.fixture(autouse=True)
def no_picks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules, whatever was measured; a test that needs a pick gives one."""
    monkeypatch.setattr("sparsec.plan.target.PICKS", {})


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


@pytest.mark.parametrize(
    ("target", "head_dim", "dtype", "query_tile", "light", "limit"),
    [
        ("cuda:90", 64, "bfloat16", 128, True, 128),
        ("cuda:90", 8, "float16", 128, True, 128),
        ("cuda:90", 64, "bfloat16", 128, False, None),
        ("cuda:90", 64, "bfloat16", 64, True, None),
        ("cuda:90", 72, "bfloat16", 128, True, None),
        ("cuda:90", 64, "float32", 128, True, None),
        ("cuda:80", 64, "bfloat16", 128, True, None),
        ("hip:gfx942", 64, "bfloat16", 128, True, None),
    ],
)
def test_registers_are_limited_for_light_programs_of_eight_warps_on_hopper(
    target: str, head_dim: int, dtype: str, query_tile: int, light: bool, limit: int | None
) -> None:
    shape = launch_shape(target, head_dim, dtype, query_tile, 64, light=light)
    assert shape.maxnreg == limit
    assert replace(shape, maxnreg=None) == launch_shape(target, head_dim, dtype, query_tile, 64)
    assert cached_shape(target, head_dim, dtype, query_tile, 64).maxnreg is None


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("target", GPUS)
def test_kernels_may_have_all_registers_where_the_assembler_would_spare_some(target: str, head_dim: int) -> None:
    """On Blackwell, and those of decoding on all GPUs that have a limit."""
    kinds = {kind for kind in Kind if SHAPES[kind](target, head_dim, "bfloat16", 64, 64).maxnreg == 255}
    ours = {Kind.DECODE} if target.startswith("cuda") else set()
    if target == "cuda:100":
        ours |= {Kind.FORWARD, Kind.CHUNK, Kind.GRAD_KEYS} if head_dim == 64 else {Kind.GRAD_KEYS}
    assert kinds == ours
    assert all(shape(target, head_dim, "float32", 64, 64).maxnreg is None for shape in SHAPES.values())
    assert decode_shape("interpreter", head_dim, "float16", 16, 32).maxnreg is None


def test_documents_and_changed_scores_halve_a_query_tile_on_hopper() -> None:
    assert transposed_tile_sizes("cuda:90", 64, "bfloat16") == (64, 128)
    assert transposed_tile_sizes("cuda:90", 64, "bfloat16", busy=True) == (32, 128)


@pytest.mark.parametrize(
    ("target", "kind", "head_dim"), [("cuda:90", Kind.GRAD_KEYS, 64), ("cuda:80", Kind.GRAD_QUERIES, 128)]
)
def test_a_third_stage_where_two_spill(target: str, kind: Kind, head_dim: int) -> None:
    tiles = TILES[kind](target, head_dim, "bfloat16")
    assert SHAPES[kind](target, head_dim, "bfloat16", *tiles).stages == 3
    others = {each: TILES[each](target, head_dim, "bfloat16") for each in (Kind.GRAD_QUERIES, Kind.GRAD_KEYS)}
    assert [SHAPES[each](target, head_dim, "bfloat16", *tiles).stages for each, tiles in others.items()].count(2) == 1
    assert SHAPES[kind](target, 256, "bfloat16", 64, 32).stages == 1


TILES = {
    Kind.FORWARD: lambda *given: tile_sizes(*given)[:2],
    Kind.GRAD_QUERIES: backward_tile_sizes,
    Kind.GRAD_KEYS: transposed_tile_sizes,
    Kind.CHUNK: cached_tile_sizes,
    Kind.DECODE: decode_tile_sizes,
}
SHAPES = {
    Kind.FORWARD: launch_shape,
    Kind.GRAD_QUERIES: partial(backward_shape, of_keys=False),
    Kind.GRAD_KEYS: partial(backward_shape, of_keys=True),
    Kind.CHUNK: cached_shape,
    Kind.DECODE: decode_shape,
}
OTHER = Pick(16, 256, 2, 7, 96)


@pytest.mark.parametrize("picked", Kind)
@pytest.mark.parametrize(("head_dim", "of"), [(33, 64), (64, 64), (72, 128), (128, 128), (129, 256), (256, 256)])
def test_a_pick_comes_before_the_rules_for_its_kind_alone(picked: Kind, head_dim: int, of: int) -> None:
    given = "cuda:90", head_dim, "bfloat16"
    ruled = {kind: TILES[kind](*given) for kind in Kind}
    shapes = {kind: SHAPES[kind](*given, *ruled[kind]) for kind in Kind}
    with patch("sparsec.plan.target.PICKS", {(Family.HOPPER, picked, of, "bfloat16"): OTHER}):
        for kind in Kind:
            assert TILES[kind](*given) == ((16, 256) if kind is picked else ruled[kind])
            assert SHAPES[kind](*given, *ruled[kind]) == shapes[kind]  # tiles of another size
        tma = picked not in (Kind.CHUNK, Kind.DECODE)
        assert SHAPES[picked](*given, 16, 256) == LaunchShape(2, 7, tma, 96)
        assert SHAPES[picked](*given, 32, 256) != LaunchShape(2, 7, tma, 96)
        if picked is Kind.FORWARD:
            assert tile_sizes(*given) == (16, 256, 2, 7)


@pytest.mark.parametrize(
    "given",
    [
        ("cuda:80", 64, "bfloat16"),
        ("cuda:100", 64, "bfloat16"),
        ("cuda:90", 64, "float16"),
        ("cuda:90", 64, "float32"),
        ("cuda:90", 32, "bfloat16"),
        ("cuda:90", 65, "bfloat16"),
        ("cuda:90", 257, "bfloat16"),
    ],
)
def test_a_pick_serves_no_other_target_dtype_or_head_dimension(given: tuple[str, int, str]) -> None:
    ruled = {kind: TILES[kind](*given) for kind in Kind}
    shapes = {kind: SHAPES[kind](*given, 16, 256) for kind in Kind}
    with patch("sparsec.plan.target.PICKS", {(Family.HOPPER, kind, 64, "bfloat16"): OTHER for kind in Kind}):
        assert {kind: TILES[kind](*given) for kind in Kind} == ruled
        assert {kind: SHAPES[kind](*given, 16, 256) for kind in Kind} == shapes


def test_a_pick_of_gradients_of_keys_is_not_for_what_is_busy_but_a_given_one_is() -> None:
    given = "cuda:90", 64, "bfloat16"
    ruled = transposed_tile_sizes(*given, busy=True)
    with patch("sparsec.plan.target.PICKS", {(Family.HOPPER, Kind.GRAD_KEYS, 64, "bfloat16"): OTHER}):
        assert transposed_tile_sizes(*given) == (16, 256)
        assert transposed_tile_sizes(*given, busy=True) == ruled
    assert transposed_tile_sizes(*given, ((Kind.GRAD_KEYS, OTHER),), busy=True) == (16, 256)
