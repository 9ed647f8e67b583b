"""What `sparsec tune` found best -> the build cache, and back when the same kernels are compiled for the same card.

Invariant: tiles that are found were measured for the same pattern, dimensions, dtype, card and releases.
"""

from __future__ import annotations

import json
from importlib.metadata import version

import torch

from sparsec.backends import registry
from sparsec.plan.picks import Tiles
from sparsec.plan.tiles import tiles_data, tiles_from
from sparsec.runtime.build.cache import build_key, discard, lookup, publish
from sparsec.runtime.request import DIGEST_LENGTH, Request, kernel_name

_FILE = "tiles.json"


def keep_tiles(request: Request, target: str, device: torch.device, tiles: Tiles) -> None:
    """Raises BuildError where there is no room."""
    key = _key(request, target, device)
    discard(key)
    publish(key, {_FILE: json.dumps(tiles_data(tiles)).encode()})


def kept_tiles(request: Request, target: str, device: torch.device) -> Tiles:
    """None of them where nothing was kept."""
    folder = lookup(_key(request, target, device))
    return () if folder is None else tiles_from(json.loads((folder / _FILE).read_bytes()))


def _key(request: Request, target: str, device: torch.device) -> str:
    """`request`: whatever its tiles."""
    releases = (f"{name} {version(name)}" for name in registry.builder(target).packages)
    card = torch.cuda.get_device_properties(device).name
    return build_key("tiles", kernel_name(request.with_tiles(()), target)[:DIGEST_LENGTH], card, *releases)
