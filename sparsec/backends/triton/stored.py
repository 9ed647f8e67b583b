"""The machine code of a folder -> entries of Triton's cache, so that a first launch finds it and compiles nothing.

Invariant: an entry has the name that Triton gives to what is compiled from the same source, for the same device and by
the same version: code that does not fit is never found. What Triton has already stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress

import torch
import triton
from triton.runtime.cache import get_cache_manager


def store_code(files: Mapping[str, bytes]) -> None:
    """Stores the kernels of `files`, as `aot` names them, that were compiled by this Triton for a GPU of this machine.

    A cache that cannot be written to stays as it is: kernels are then compiled, or Triton says why not.
    """
    found = _architectures()
    for name, data in files.items():
        stem, _, ending = name.rpartition(".")
        if ending != "json" or f"{stem}.cubin" not in files:
            continue
        described = json.loads(data)
        target = described["target"]
        if described["triton_version"] == triton.__version__ and (target["backend"], target["arch"]) in found:
            with suppress(OSError):
                kernel = stem.rpartition(".")[2]
                endings = ("json", "ptx", "cubin")
                _store(described["hash"], kernel, {f"{kernel}.{each}": files[f"{stem}.{each}"] for each in endings})


def _store(compiled: str, kernel: str, files: Mapping[str, bytes]) -> None:
    manager = get_cache_manager(compiled)
    group = f"{kernel}.json"
    if group not in (manager.get_group(group) or {}):
        manager.put_group(group, {each: manager.put(data, each, binary=True) for each, data in files.items()})


def _architectures() -> set[tuple[str, int]]:
    """Of this machine's NVIDIA GPUs."""
    if not torch.cuda.is_available() or torch.version.hip is not None:
        return set()
    devices = (torch.device("cuda", n) for n in range(torch.cuda.device_count()))
    each = map(torch.cuda.get_device_properties, devices)
    return {("cuda", 10 * properties.major + properties.minor) for properties in each}
