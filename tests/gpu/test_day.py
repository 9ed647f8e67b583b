"""The day's script on this machine: all of it on CPU tensors in the interpreter, and with each step failing in turn.

`gpu.py` and the tools of NVIDIA are stand-ins here: what no GPU is needed for (that every step runs from the first
line to the last, ends in time and writes its file) is what these tests hold.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import day
import pytest
from counters import METRICS, parse
from day import STEPS, Day, Step

HERE = Path(__file__).resolve().parent
FILES = (
    "environment.json",
    "tests.json",
    "gpu_sweep.json",
    "gpu_bench.json",
    "gluon.json",
    "ncu.json",
    "sanitizers.json",
)
RESULTS_LIMIT = 8
"""Files that come back from the machine with the GPU."""

NCU = f"""#!{sys.executable}
import subprocess, sys
log, command = sys.argv[sys.argv.index("--log-file") + 1], sys.argv[sys.argv.index("--log-file") + 2 :]
metrics = sys.argv[sys.argv.index("--metrics") + 1].split(",")
code = subprocess.run(command).returncode
rows = [["ID", "Kernel Name", *metrics], ["", "", *["unit"] * len(metrics)]]
rows += [[str(n), name, "1,234.5", *["n/a"] * (len(metrics) - 1)] for n, name in enumerate(("forward_0", "decode_0"))]
text = "==PROF== Connected\\n" + "\\n".join(",".join(f'"{{cell}}"' for cell in row) for row in rows)
open(log, "w").write(text + "\\n")
sys.exit(code)
"""
SANITIZER = f"""#!{sys.executable}
import subprocess, sys
code = subprocess.run(sys.argv[sys.argv.index("20") + 1 :]).returncode
print("========= ERROR SUMMARY: 3 errors" if "memcheck" in sys.argv else "========= RACECHECK SUMMARY: 0 hazards")
sys.exit(code or (99 if "memcheck" in sys.argv else 0))
"""


def install(folder: Path, **programs: str) -> None:
    folder.mkdir()
    for name, text in programs.items():
        path = folder / name.replace("_", "-")
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)


def run(out: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {"OUT": str(out), "PYTHON": sys.executable, "SPARSEC_GPU_PATIENCE": "10", "TORCHDYNAMO_DISABLE": "1"}
    return subprocess.run(
        ["bash", str(HERE / "run.sh"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **own, **environment},
        check=False,
    )


def test_rehearsal(tmp_path: Path) -> None:
    """Every step, in order, and every file that it writes."""
    out = tmp_path / "out"
    install(tmp_path / "bin", ncu=NCU, compute_sanitizer=SANITIZER)
    few = {"SPARSEC_GPU_WORKERS": "1", "SPARSEC_GPU_COMPILERS": "1", "SPARSEC_GPU_WARMERS": "1"}
    few |= {"SPARSEC_GPU_TESTS": str(HERE / "test_picks.py"), "SPARSEC_REHEARSAL": "1"}
    done = run(out, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}", **few)
    outcomes = {line.split()[0]: line.split("  ")[-1] for line in done.stdout.splitlines()[-len(STEPS) - 2 :] if line}
    log = (out / "log.txt").read_text()
    expected = {step.name: "ok" for step in STEPS}
    expected["sanitizers"] = "exit status 1"  # where the stand-in finds something
    assert {name: outcomes.get(name) for name in expected} == expected, log + done.stdout + done.stderr
    assert done.returncode == 1
    assert {path.name for path in out.iterdir()} == {*FILES, "log.txt"}
    assert len(list(out.iterdir())) <= RESULTS_LIMIT
    found = {name: json.loads((out / name).read_text()) for name in FILES}
    assert found["environment.json"]["card"] == "rehearsal" and found["environment.json"]["bf16_product_flops"] > 0
    assert {row["outcome"] for row in found["tests.json"]["rows"]} == {"passed"} and not found["tests.json"]["running"]
    swept = found["gpu_sweep.json"]["rows"]
    assert len(swept) == found["gpu_sweep.json"]["planned"]
    assert {row["kind"] for row in swept} == {"forward", "grad_queries", "grad_keys", "chunk", "decode"}
    for row in swept:
        assert row["right"] is True and row["error"] is None and row["ms"] > 0, row
    trained, *decoded, beside_flex = found["gpu_bench.json"]["rows"]
    assert trained["right"] is True and trained["state"]
    assert {"sparsec", "flash"} <= set(trained["forward"]["ms"])
    assert {"sparsec", "flex", "flex64"} <= set(beside_flex["forward"]["ms"])
    assert {"sparsec", "flash"} <= set(trained["both"]["ms"]) and "cudnn" in trained["absent"]
    assert len(decoded) == 2
    for row in decoded:
        assert row["decode"] and row["caches"] > 1 and row["eager_ms"] > 0 and row["share_of_copy_bandwidth"] > 0
    assert [row["kernel"] for row in found["ncu.json"]["rows"]] == ["forward_0", "decode_0"]
    assert found["ncu.json"]["rows"][0]["time_ns"] == 1234.5
    assert found["sanitizers.json"]["memcheck"]["verdict"] == "findings: 3"
    assert found["sanitizers.json"]["racecheck"]["verdict"] == "no findings"
    assert [row.get("right", True) for row in found["gluon.json"]["rows"]] == [True, True]
    assert "sweep: 10 of 10 candidates, 0 failed, 0 wrong" in log and "cannot be shown" not in log


def test_a_machine_without_a_gpu_is_told_so_at_once(tmp_path: Path) -> None:
    done = run(tmp_path / "out", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == day.NO_CARD and "expected a machine with a GPU" in done.stdout
    assert "tests:" not in done.stdout


def quick(name: str, code: str = "pass") -> Step:
    planned = next(step for step in STEPS if step.name == name)
    return replace(planned, command=("{python}", "-c", code), limit=20.0)


FAILURES = {
    "fails": ("raise SystemExit(7)", "exit status 7"),
    "hangs, and so does its child": (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])",
        "cut off after 1 s",
    ),
    "crashes": ("import os; os.abort()", "exit status -6"),
}


@pytest.mark.parametrize("failing", [step.name for step in STEPS])
@pytest.mark.parametrize("how", FAILURES)
def test_a_step_that_fails_costs_itself_alone(
    failing: str, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, outcome = FAILURES[how]
    steps = []
    for step in STEPS:
        if step.name != failing:
            steps.append(quick(step.name, f"print('{step.name} ran')"))
        else:
            steps.append(replace(quick(step.name, code), limit=1.0))
    assert run_steps(tmp_path, steps) == int(not (failing == "warm" and "hangs" in how))
    said = (tmp_path / "log.txt").read_text()
    for step in STEPS:
        if step.name != failing:
            assert f"{step.name} ran" in said and f"--- {step.name}: ok" in said
    if failing == "warm" and "hangs" in how:  # it runs beside others, and is ended for the first that is to be alone
        outcome = "ended, so that the next step is alone"
    assert f"--- {failing}: {outcome}" in said
    assert outcome in capsys.readouterr().out
    assert any(line.startswith(f"{failing} ") and line.endswith(f"s  {outcome}") for line in said.splitlines())


def run_steps(out: Path, steps: list[Step]) -> int:
    scratch = out / "scratch"
    scratch.mkdir()
    return Day(out, scratch, day.time.monotonic()).run(steps)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    missing = replace(quick("counters"), command=("/nowhere/ncu",))
    assert run_steps(tmp_path, [missing, quick("sanitizers")]) == 1
    said = (tmp_path / "log.txt").read_text()
    assert "counters: not started: " in said and "sanitizers: ok" in said


def test_a_day_that_has_run_long_leaves_steps_out_and_still_ends_with_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(day, "TOTAL", 20.0)
    monkeypatch.setattr(day, "PATIENCE", 1.0)
    assert run_steps(tmp_path, [quick(step.name) for step in STEPS]) == 1
    said = (tmp_path / "log.txt").read_text()
    assert "left out: no time" in said and "sanitizers" in said


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("text", ["", "{", "[]", '{"rows": [{"kind": 1}]}', '{"rows": 3, "card": []}'])
def test_a_spoiled_file_takes_its_own_lines_alone(name: str, text: str, tmp_path: Path) -> None:
    for each in FILES:
        (tmp_path / each).write_text('{"rows": [], "running": [], "card": "a card", "target": "cuda:90"}')
    (tmp_path / "sanitizers.json").write_text('{"memcheck": {"verdict": "no findings"}}')
    (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, str(HERE / "summary.py"), "--out", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    kept = {"environment.json": "a card", "gpu_sweep.json": "0 of None candidates", "gpu_bench.json": "of ideal"}
    kept["sanitizers.json"] = "memcheck: no findings"
    for each, words in kept.items():
        assert each == name or words in done.stdout


def test_the_plan_fits_into_one_call() -> None:
    assert sum(step.planned for step in STEPS) + day.TABLE_SECONDS < 555 < 560
    done = subprocess.run([sys.executable, str(HERE / "day.py"), "--list"], capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == [*(step.name for step in STEPS), "all"]


def test_counters_are_read_out_of_ncu_s_page() -> None:
    metrics = [METRICS["registers"], METRICS["time_ns"], "another"]
    lines = ["==PROF== Profiling", '"ID","Kernel Name",' + ",".join(f'"{name}"' for name in metrics)]
    lines += ['"","","register/thread","ns",""', '"0","grad_keys_0","255","1,000,000","n/a"']
    assert parse("\n".join(lines)) == [
        {
            "kernel": "grad_keys_0",
            "registers": 255.0,
            "registers_unit": "register/thread",
            "time_ns": 1e6,
            "time_ns_unit": "ns",
        }
    ]
    assert parse("==ERROR== no permission") == parse("") == []


def test_results_are_put_under_the_card_s_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import carry

    monkeypatch.setattr(carry, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    assert carry.results(tmp_path) == 1 and not list((tmp_path / "results").iterdir())
    (tmp_path / "environment.json").write_text('{"card": "NVIDIA H100 80GB HBM3", "packages": {"torch": "2.11.0"}}')
    (tmp_path / "gpu_sweep.json").write_text('{"rows": [], "target": "cuda:90"}')
    (tmp_path / "ncu.json").write_text("{")
    assert carry.results(tmp_path) == 0
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert names == {f"gpu_nvidia_h100_80gb_hbm3_{kind}.json" for kind in ("environment", "sweep")}
    swept = json.loads((tmp_path / "results" / "gpu_nvidia_h100_80gb_hbm3_sweep.json").read_text())
    assert swept["target"] == "cuda:90" and swept["packages"] == {"torch": "2.11.0"}
