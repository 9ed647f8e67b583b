"""What the machine is, and its two ceilings: the copy bandwidth and the rate of a large matrix product.

python tests/gpu/environment.py --out FOLDER
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import torch
from day import NO_CARD
from gpu import REHEARSAL, card, state
from results import write
from step import arguments

from sparsec.bench.clock import median_seconds
from sparsec.diagnostics.model import in_one_line

PACKAGES = ("torch", "triton", "numpy", "lark", "jinja2", "networkx", "click", "hypothesis", "pytest", "pytest-xdist")
TOOLS = ("nvidia-smi", "ncu", "compute-sanitizer", "nvcc", "cuobjdump")
COPIED_BYTES, PRODUCT = (1 << 16, 64) if REHEARSAL else (1 << 32, 8192)


def main() -> int:
    given = arguments(__doc__)
    try:
        found = card()
    except RuntimeError as error:
        print(error)
        return NO_CARD
    about = {
        "card": found.name,
        "target": found.target,
        "processors": found.processors,
        "memory_bytes": found.memory_bytes,
        "l2_bytes": found.l2_bytes,
        "driver": _first_word("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
        "tools": {name: shutil.which(name) is not None for name in TOOLS},
    }
    write(given.out / "environment.json", about)  # the ceilings may fail; this much is known
    source = torch.randn(COPIED_BYTES // 4, device=found.device)
    copy = torch.empty_like(source)
    left, right = (torch.randn(PRODUCT, PRODUCT, device=found.device).bfloat16() for _ in range(2))
    calls = {"copy": lambda: copy.copy_(source), "product": lambda: torch.mm(left, right)}
    try:
        times = median_seconds(calls, repeats=5, device=found.device)
        about["copy_bytes_per_second"] = 2 * COPIED_BYTES / times["copy"].seconds
        about["bf16_product_flops"] = 2 * PRODUCT**3 / times["product"].seconds
    except RuntimeError as error:
        about["error"] = in_one_line(error)
    about["state"] = state()
    write(given.out / "environment.json", about)
    return int("error" in about)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _first_word(*command: str) -> str | None:
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(said.split()), None)


if __name__ == "__main__":
    sys.exit(main())
