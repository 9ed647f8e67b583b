"""What jobs in worker processes say reaches the step, whatever they raise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

SCRIPT = '''
import time
from pool import run_all, workers
from step import Given
from pathlib import Path

class Stubborn(Exception):
    """It cannot be made anew from what it is pickled as."""
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")

def job(n):
    if n == 1:
        raise Stubborn("one", "two")
    time.sleep(60 if n == 3 else 0)
    return f"did {n}"

if __name__ == "__main__":
    with workers(2) as pool:
        print("failed", run_all(pool, job, [(n,) for n in range(3)], Given(Path("."), time.monotonic() + 100, {})))
        run_all(pool, job, [(3,)], Given(Path("."), time.monotonic(), {}))
    print("never said")
'''


def test_an_error_costs_its_own_job_and_the_time_cuts_off_the_rest(tmp_path: Path) -> None:
    here = Path(__file__).resolve().parent
    script = tmp_path / "jobs.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {"PYTHONPATH": path, "SPARSEC_REHEARSAL": "1"}
    with (tmp_path / "said.txt").open("w+") as file:
        process = subprocess.Popen(
            [sys.executable, str(script)], stdout=file, stderr=file, env=environment, start_new_session=True
        )
        try:
            code = process.wait(timeout=120)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the workers that are left behind, as the day's script does
        file.seek(0)
        said = file.read()
    assert code == 0, said
    assert "1 Stubborn: one and two" in said and "0 did 0" in said and "2 did 2" in said
    assert "3 of 3 done, 1 failed" in said and "failed 1" in said
    assert "0 of 1 done" in said and "never said" not in said
