"""What a machine with a GPU and no package index needs, and what it sends back.

    python tests/gpu/carry.py wheels [FOLDER]    fills .wheels with the packages that tests/gpu/run.sh may miss there
    python tests/gpu/carry.py results FOLDER     puts a day's JSON into tests/bench/results, named for the card

Invariant: results become files of that folder whole or not at all, and one card's never take another's place.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from results import read, write

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests" / "bench" / "results"
PYTHON, PLATFORMS = "3.12", ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
"""Of the machine with the GPU."""
PACKAGES = ("lark",)
"""What such a machine, which has torch, triton and the usual test tools, lacks; without needs of their own."""
LIMIT = 64 << 20
"""Bytes of all wheels: what may be carried."""
KEPT = {
    "environment.json": "environment",
    "tests.json": "tests",
    "gpu_sweep.json": "sweep",
    "gpu_bench.json": "bench",
    "gluon.json": "gluon",
    "ncu.json": "counters",
    "sanitizers.json": "sanitizers",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("wheels").add_argument("folder", type=Path, nargs="?", default=ROOT / ".wheels")
    commands.add_parser("results").add_argument("folder", type=Path)
    given = parser.parse_args()
    return wheels(given.folder) if given.command == "wheels" else results(given.folder)


def wheels(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(folder),
    ]
    pip += ["--python-version", PYTHON, "--implementation", "cp"]
    pip += [word for platform in PLATFORMS for word in ("--platform", platform)]
    done = subprocess.run([*pip, "--constraint", str(ROOT / "tests" / "constraints.txt"), *PACKAGES], check=False)
    if done.returncode != 0:
        return done.returncode
    found = sorted(folder.glob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in found)
    print(f"{', '.join(wheel.name for wheel in found)}: {size / 1e6:.1f} MB in {folder}")
    if size > LIMIT:
        print(f"expected at most {LIMIT / 1e6:.0f} MB", file=sys.stderr)
        return 1
    return 0


def results(folder: Path) -> int:
    """Exit status 1, and nothing written, where the folder does not say what card it is of."""
    about = read(folder / "environment.json")
    if about is None or not isinstance(about.get("card"), str):
        print(f"expected {folder}/environment.json with the card's name, found none", file=sys.stderr)
        return 1
    card = re.sub(r"[^a-z0-9]+", "_", about["card"].lower()).strip("_")
    for name, kind in KEPT.items():
        data = read(folder / name)
        if data is not None:
            path = RESULTS / f"gpu_{card}_{kind}.json"
            write(path, {"card": about["card"], "packages": about.get("packages"), **data})
            print(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
