"""Tiles that a caller gives: how they are written down, what is refused, and which kernels take them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import sparsec
from sparsec.diagnostics.model import CallError
from sparsec.plan.candidates import candidates_of, ruled
from sparsec.plan.launch import Launches
from sparsec.plan.picks import Kind, Pick, Tiles
from sparsec.plan.target import launch_shape
from sparsec.plan.tiles import tiles_data, tiles_from
from sparsec.runtime.build.manifest import launch_data, launches_of
from sparsec.runtime.request import Request, kernel_name, request_of

EVERY: Tiles = (
    (Kind.FORWARD, Pick(64, 32, 2, 1, 168)),
    (Kind.GRAD_QUERIES, Pick(32, 64, 1, 2)),
    (Kind.GRAD_KEYS, Pick(16, 128, 8, 3)),
    (Kind.CHUNK, Pick(64, 64, 4, 4)),
    (Kind.DECODE, Pick(16, 128, 2, 5)),
)
TEXT = "pattern p { causal attend window(1000) }"


def request(tiles: Tiles = ()) -> Request:
    return Request(sparsec.parse(TEXT).pattern().lowered(4, 2), 64, 64, torch.bfloat16).with_tiles(tiles)


def test_tiles_survive_json() -> None:
    assert tiles_from(json.loads(json.dumps(tiles_data(EVERY)))) == EVERY
    assert tiles_from({"decode": (16, 64, 4, 2), "forward": [128, 64, 8, 3]}) == (
        (Kind.FORWARD, Pick(128, 64, 8, 3)),
        (Kind.DECODE, Pick(16, 64, 4, 2)),
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([128, 64], "expected tiles by the kind of kernel, got"),
        ({"sideways": (64, 64, 4, 2)}, "expected tiles of forward, grad_queries, grad_keys, chunk, decode, got"),
        ({"forward": (64, 64, 4)}, r"expected tiles of forward as \(query tile, key tile, warps, stages\) or"),
        ({"forward": (64, 64, 4, True)}, "expected tiles of forward as"),
        ({"forward": "1234"}, "expected tiles of forward as"),
        ({"forward": (48, 64, 4, 2)}, "expected a query tile of forward among 16, 32, 64, 128, 256, got 48"),
        ({"decode": (64, 64, 4, 2)}, "expected a query tile of decode among 16, got 64"),
        ({"chunk": (64, 512, 4, 2)}, "expected a key tile of chunk among 16, 32, 64, 128, 256, got 512"),
        ({"forward": (64, 64, 3, 2)}, "expected a number of warps of forward among 1, 2, 4, 8, 16, got 3"),
        ({"forward": (64, 64, 4, 0)}, "expected a number of stages of forward among 1, 2, .*, got 0"),
        ({"forward": (64, 64, 4, 2, 256)}, "expected from 24 to 255 registers of a thread of forward, got 256"),
    ],
)
def test_other_data_is_refused(given: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiles_from(given)


def test_every_kernel_takes_its_own() -> None:
    of = request(EVERY).compilation("cuda:90")
    plans = (
        (Kind.FORWARD, of.forward.classes),
        (Kind.GRAD_QUERIES, of.backward.forward.classes),
        (Kind.GRAD_KEYS, of.backward.transposed),
        (Kind.CHUNK, of.chunks.attend.classes),
        (Kind.DECODE, of.rows.attend.classes),
    )
    launches = Launches.of(of.forward, of.backward, of.cached)
    for each in (launches, launches_of(json.loads(json.dumps(launch_data(launches))), of.chunks.layout)):
        assert each.backward is not None and each.cached is not None
        (forward,), (queries,) = each.forward.classes, each.backward.forward.classes
        (keys,), (chunk,), (few,) = each.backward.transposed, each.cached.chunks.classes, each.cached.few.classes
        shapes = (
            each.forward.shape(forward, "cuda:90"),
            each.backward.shape(queries, "cuda:90", of_keys=False),
            each.backward.shape(keys, "cuda:90", of_keys=True),
            each.cached.chunk_shape(chunk, "cuda:90"),
            each.cached.decode_shape(few, "cuda:90", 16),
        )
        for (kind, (head_class,)), shape in zip(plans, shapes, strict=True):
            program = head_class.program
            found = Pick(program.query_tile, program.key_tile, shape.warps, shape.stages, shape.maxnreg)
            assert found == dict(EVERY)[kind], kind


def test_what_is_not_given_is_as_ever() -> None:
    plain, chosen = (request(tiles).compilation("cuda:90") for tiles in ((), EVERY[:1]))
    assert chosen.backward == replace(
        plain.backward, forward=replace(plain.backward.forward, tiles=chosen.forward.tiles)
    )
    assert chosen.forward != plain.forward
    assert launch_shape("cuda:90", 64, "bfloat16", 128, 64, tiles=EVERY) == launch_shape(
        "cuda:90", 64, "bfloat16", 128, 64
    )


def test_a_name_says_them() -> None:
    plain, chosen = (kernel_name(request(tiles), "cuda:90") for tiles in ((), EVERY))
    assert plain != chosen
    for name, tiles in ((plain, ()), (chosen, EVERY)):
        found, target = request_of(name)
        assert (found.tiles, target) == (tiles, "cuda:90")


def test_where_there_are_none_to_choose_they_are_refused() -> None:
    with pytest.raises(CallError, match="expected no tiles for target 'cpu', which has none to choose, got"):
        sparsec.compile(TEXT, heads=1, head_dim=16, target="cpu", tiles={"forward": (64, 64, 4, 2)})
    with pytest.raises(CallError, match="expected tiles of forward as"):
        sparsec.compile(TEXT, heads=1, head_dim=16, target="triton", device="cpu", tiles={"forward": (64,)})


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    ("head_dim", "dtype"), [(40, "bfloat16"), (128, "float16"), (256, "float32"), (300, "float32")]
)
def test_candidates_begin_with_what_is_taken_untuned(kind: Kind, head_dim: int, dtype: str) -> None:
    found = candidates_of("cuda:90", kind, head_dim, dtype)
    assert found[0] == ruled("cuda:90", kind, head_dim, dtype) and len(set(found)) == len(found)
    assert (len(found) > 1) == (head_dim <= 256)
    for pick in found:
        assert tiles_from(tiles_data(((kind, pick),))) == ((kind, pick),)
