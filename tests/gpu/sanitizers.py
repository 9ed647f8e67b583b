"""Two tools of `compute-sanitizer` on `sanitized.py`, beside each other; their findings into sanitizers.json.

python tests/gpu/sanitizers.py --out FOLDER
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from results import write
from step import arguments

HERE = Path(__file__).resolve().parent
TOOLS = ("memcheck", "racecheck")
FOUND = 99
"""The exit status that is asked for where something is found."""


def main() -> int:
    given, started = arguments(__doc__), time.monotonic()
    found: dict[str, dict[str, object]] = {}
    with ThreadPoolExecutor() as pool:
        running = {pool.submit(run, tool, given.left()): tool for tool in TOOLS}
        for each in as_completed(running):
            tool, (verdict, text) = running[each], each.result()
            found[tool] = {"verdict": verdict, "seconds": round(time.monotonic() - started, 1), "text": text[-4000:]}
            write(given.out / "sanitizers.json", found)
            print(tool, verdict, text)
    return int(any(row["verdict"] != "no findings" for row in found.values()))


def run(tool: str, seconds: float) -> tuple[str, str]:
    """The verdict, and what was said."""
    if shutil.which("compute-sanitizer") is None:
        return "not installed", ""
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", str(FOUND), "--print-limit", "20"]
    try:
        done = subprocess.run(
            [*command, sys.executable, str(HERE / "sanitized.py")],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        return f"not finished in {seconds:.0f} s", said.decode(errors="replace") if isinstance(said, bytes) else said
    text = done.stdout + done.stderr
    if done.returncode == FOUND:
        count = re.search(r"ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard", text)
        return f"findings: {next(filter(None, count.groups())) if count else 'some'}", text
    if done.returncode != 0:
        return f"exit status {done.returncode}", text
    return "no findings", text


if __name__ == "__main__":
    sys.exit(main())
