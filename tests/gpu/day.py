"""The steps of a day with a GPU, each a process of its own with a deadline; results in a folder, a table last.

Invariant: whatever a step does (fails, hangs, writes nothing, is missing), those after it run, and all end in time.
Nothing outside Python's library is needed to get that far.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PATIENCE = float(os.environ.get("SPARSEC_GPU_PATIENCE", "1"))
"""Multiplies every limit: a rehearsal, in the interpreter, takes as long as its machine takes."""
TOTAL = 555.0 * PATIENCE
"""Seconds of the whole call."""
TABLE_SECONDS = 8.0 * PATIENCE
NO_CARD = 3
"""The exit status of the first step where there is no GPU: then there are no others."""
LOG_LIMIT = 1 << 20
"""Bytes of a step's output that the log keeps: its end."""
NEEDED = ("lark", "jinja2", "networkx", "click", "numpy", "hypothesis", "pytest", "xdist")
"""Modules; torch and triton are the machine's own."""
DISTRIBUTIONS = {"xdist": "pytest-xdist"}


@dataclass(frozen=True, slots=True)
class Step:
    """`planned`: the seconds that it should take; it is ended at `limit`. `beside`: it runs while the next ones do.

    `alone`: nothing may run beside it. `{out}` and `{until}` stand in the command for the folder and for its end.
    """

    name: str
    planned: float
    limit: float
    command: tuple[str, ...]
    beside: bool = False
    alone: bool = False


def _script(name: str, *more: str) -> tuple[str, ...]:
    return ("{python}", str(HERE / name), "--out", "{out}", "--until", "{until}", *more)


_PYTEST = ("{python}", "-m", "pytest", "-o", "addopts=", "-q", "-p", "no:cacheprovider", "--durations=8", "--tb=short")
_NO_REHEARSAL = ("--ignore", str(HERE / "test_day.py"))
STEPS = (
    Step("environment", 8, 45, _script("environment.py")),
    Step("warm", 0, 230, _script("warm.py"), beside=True),
    Step("tests", 165, 185, (*_PYTEST, *_NO_REHEARSAL, "-n", "{workers}", "--dist", "worksteal", "{tests}")),
    Step("compile", 45, 75, _script("sweep.py", "--compile")),
    Step("sweep", 75, 95, _script("sweep.py"), alone=True),
    Step("bench", 125, 180, _script("bench.py"), alone=True),
    Step("gluon", 35, 80, _script("gluon.py"), alone=True),
    Step("counters", 25, 60, _script("counters.py"), alone=True),
    Step("sanitizers", 40, 75, _script("sanitizers.py")),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [step.name for step in STEPS]
    parser.add_argument("--part", action="append", choices=names, metavar="STEP", help=f"one of {', '.join(names)}")
    parser.add_argument("--list", action="store_true", help="print the steps and their planned seconds")
    given = parser.parse_args(arguments)
    steps = [step for step in STEPS if not given.part or step.name in given.part]
    if given.list:
        for step in steps:
            print(f"{step.name:12} {step.planned:4.0f} s planned, ended after {step.limit:.0f} s")
        print(f"{'all':12} {sum(step.planned for step in steps):4.0f} s planned, ended after {TOTAL:.0f} s")
        return 0
    out = Path(os.environ.get("OUT") or ROOT / "build" / "gpu").resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sparsec-gpu-") as scratch:
        return Day(out, Path(scratch), time.monotonic()).run(steps)


class Day:
    """One call: `started` on the monotonic clock; what the steps do is logged in `out`."""

    def __init__(self, out: Path, scratch: Path, started: float) -> None:
        self.out, self.scratch, self.started = out, scratch, started
        self.log = out / "log.txt"
        self.log.write_text("", encoding="utf-8")
        self.outcomes: list[tuple[str, str, float]] = []
        self.running: list[tuple[Step, subprocess.Popen[bytes], Path, float]] = []
        self.environment = self._environment()

    def run(self, steps: Sequence[Step]) -> int:
        self._say(self._install())
        try:
            for n, step in enumerate(steps):
                if step.alone:
                    self._end_those_beside("ended, so that the next step is alone")
                left = TOTAL - TABLE_SECONDS - self.passed()
                # What comes later gets at least half of its plan.
                left -= sum(later.planned / 2 for later in steps[n + 1 :])
                seconds = min(step.limit * PATIENCE, left)
                if seconds < min(5.0, step.limit):
                    self._note(step, "left out: no time", 0.0)
                else:
                    self._step(step, seconds)
                if self.outcomes and self.outcomes[-1][1] == f"exit status {NO_CARD}":
                    print("expected a machine with a GPU that torch sees; SPARSEC_REHEARSAL=1 does without", flush=True)
                    return NO_CARD
        finally:
            self._end_those_beside("ended with the last step")
        self._table()
        return int(any(outcome != "ok" and not outcome.startswith("ended") for _, outcome, _ in self.outcomes))

    def passed(self) -> float:
        return time.monotonic() - self.started

    def _step(self, step: Step, seconds: float) -> None:
        output, started = self.scratch / f"{step.name}.txt", time.monotonic()
        try:
            process = self._start(step, seconds, output)
        except OSError as error:
            self._note(step, f"not started: {error}", 0.0)
            return
        if step.beside:
            self.running.append((step, process, output, started))
            return
        try:
            code = process.wait(timeout=seconds)
            outcome = "ok" if code == 0 else f"exit status {code}"
        except subprocess.TimeoutExpired:
            outcome = f"cut off after {seconds:.0f} s"
        _kill(process)  # whatever it left behind too
        self._log(step, output)
        self._note(step, outcome, time.monotonic() - started)

    def _start(self, step: Step, seconds: float, output: Path) -> subprocess.Popen[bytes]:
        workers = os.environ.get("SPARSEC_GPU_WORKERS", "12")
        tests = os.environ.get("SPARSEC_GPU_TESTS", str(HERE))
        words = {"python": sys.executable, "out": str(self.out), "workers": workers, "tests": tests}
        # A step that knows its deadline stops before it, and is cut off only if it hangs.
        words["until"] = f"{time.monotonic() + max(1.0, seconds - 5.0):.3f}"
        command = [word.format(**words) if word.startswith("{") else word for word in step.command]
        with output.open("wb") as file:
            return subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _end_those_beside(self, why: str) -> None:
        for step, process, output, started in self.running:
            code = process.poll()
            _kill(process)
            outcome = why if code is None else "ok" if code == 0 else f"exit status {code}"
            self._log(step, output)
            self._note(step, outcome, time.monotonic() - started)
        self.running.clear()

    def _install(self) -> str:
        """Puts what is missing into a folder of the path, from wheels; in words, what came of it."""
        missing = [DISTRIBUTIONS.get(name, name) for name in NEEDED if importlib.util.find_spec(name) is None]
        if not missing:
            return "nothing is missing"
        wheels = os.environ.get("WHEELS") or str(ROOT / ".wheels")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--find-links", wheels]
        done = subprocess.run(
            [*pip, "--target", str(self.scratch / "site"), *missing], capture_output=True, text=True, check=False
        )
        what = "installed" if done.returncode == 0 else "could not install"
        return f"{what} {', '.join(missing)} from {wheels} {done.stderr.strip()[-500:]}"

    def _environment(self) -> dict[str, str]:
        path = [str(ROOT), str(HERE), str(self.scratch / "site"), os.environ.get("PYTHONPATH", "")]
        own = {"PYTHONPATH": os.pathsep.join(filter(None, path)), "PYTHONUNBUFFERED": "1", "OUT": str(self.out)}
        own |= {"TRITON_DEFAULT_FP_FUSION": "1", "SPARSEC_GPU_RECORD": str(self.out / "tests.json")}
        inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        if "SPARSEC_REHEARSAL" in os.environ:
            own["TRITON_INTERPRET"] = "1"
        return inherited | own

    def _table(self) -> None:
        """The table of what was found, and the steps' outcomes, on the screen and at the end of the log."""
        text = "\n".join(f"{name:12} {taken:6.1f} s  {outcome}" for name, outcome, taken in self.outcomes)
        found = ""
        try:
            command = [sys.executable, str(HERE / "summary.py"), "--out", str(self.out)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TABLE_SECONDS, check=False)
            found = done.stdout if done.returncode == 0 else f"no table: {done.stderr.strip()[-500:]}\n"
        except (OSError, subprocess.SubprocessError) as error:
            found = f"no table: {error}\n"
        summary = f"{found}\n{text}\n{'all':12} {self.passed():6.1f} s\n"
        self._say(summary)

    def _note(self, step: Step, outcome: str, taken: float) -> None:
        self.outcomes.append((step.name, outcome, taken))
        self._say(f"{step.name}: {outcome}, {taken:.1f} s; {self.passed():.0f} s in all")

    def _say(self, text: str) -> None:
        print(text, flush=True)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"--- {text}\n")

    def _log(self, step: Step, output: Path) -> None:
        with suppress(OSError):
            said = output.read_bytes()[-LOG_LIMIT:].decode("utf-8", errors="replace")
            with self.log.open("a", encoding="utf-8") as file:
                file.write(f"=== {step.name}\n{said}\n")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)


if __name__ == "__main__":
    sys.exit(main())
