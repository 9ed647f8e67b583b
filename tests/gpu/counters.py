"""Hardware counters of three kernels, by `ncu`, into ncu.json: where the time goes that the benchmarks show.

python tests/gpu/counters.py --out FOLDER
"""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
from pathlib import Path

from results import Results
from step import arguments

HERE = Path(__file__).resolve().parent
KERNELS = "regex:^(forward|grad_queries|grad_keys|decode)_0$"
METRICS = {
    "time_ns": "gpu__time_duration.sum",
    "registers": "launch__registers_per_thread",
    "shared_bytes": "launch__shared_mem_per_block_dynamic",
    "programs": "launch__grid_size",
    "waves": "launch__waves_per_multiprocessor",
    "tensor_share": "sm__inst_executed_pipe_tensor_op_hmma.avg.pct_of_peak_sustained_active",
    "tensor_cycles_share": "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
    "sm_share": "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "memory_share": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "memory_bytes_read": "dram__bytes_read.sum",
    "memory_bytes_written": "dram__bytes_write.sum",
    "l2_hit_share": "lts__t_sector_hit_rate.pct",
    "warps_share": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "issued_share": "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "instructions": "smsp__inst_executed.sum",
    "exp2_instructions": "smsp__inst_executed_pipe_xu.sum",
    "local_loads": "smsp__inst_executed_op_local_ld.sum",
    "local_stores": "smsp__inst_executed_op_local_st.sum",
    "bank_conflicts": "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
    "stall_barrier": "smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio",
    "stall_long_scoreboard": "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio",
    "stall_wait": "smsp__average_warps_issue_stalled_wait_per_issue_active.ratio",
    "stall_math": "smsp__average_warps_issue_stalled_math_pipe_throttle_per_issue_active.ratio",
    "stall_gmma": "smsp__average_warps_issue_stalled_gmma_per_issue_active.ratio",
}
"""Names in ncu.json, and ncu's own."""


def main() -> int:
    given = arguments(__doc__)
    results = Results(given.out / "ncu.json", {"metrics": METRICS})
    if shutil.which("ncu") is None:
        results.say(error="ncu is not installed")
        return 1
    report = given.out / ".ncu.csv"
    command = ["ncu", "--clock-control", "none", "--profile-from-start", "off", "--kernel-name", KERNELS]
    command += ["--metrics", ",".join(METRICS.values()), "--csv", "--page", "raw", "--print-units", "base"]
    command += ["--log-file", str(report)]
    command += [sys.executable, str(HERE / "counted.py")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=given.left(), check=False)
        print(done.stdout, done.stderr)
        text = report.read_text(encoding="utf-8", errors="replace") if report.exists() else ""
        for row in parse(text):
            results.add(row)
        if done.returncode != 0 or not results.data["rows"]:
            results.say(error=f"ncu ended with {done.returncode}: {(text + done.stderr).strip()[-500:]}")
            return 1
    except subprocess.TimeoutExpired:
        results.say(error="ncu did not end in time")
        return 1
    finally:
        report.unlink(missing_ok=True)
    return 0


def parse(text: str) -> list[dict[str, object]]:
    """ncu's raw page (messages, a row of names, one of units, one a kernel) -> a row a kernel by METRICS' names.

    A number is one in the base unit of `--page raw`; what ncu has no counter for is left out.
    """
    lines = text.splitlines()
    first = next((n for n, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    table = list(csv.DictReader(io.StringIO("\n".join(lines[first:]))))
    names = {own: name for name, own in METRICS.items()}
    units = table[0] if table else {}
    found = []
    for record in table[1:]:
        row: dict[str, object] = {"kernel": record.get("Kernel Name", "")}
        for own, name in names.items():
            value = (record.get(own) or "").replace(",", "")
            try:
                row[name] = float(value)
            except ValueError:
                continue
            if units.get(own):
                row[f"{name}_unit"] = units[own]
        found.append(row)
    return found


if __name__ == "__main__":
    sys.exit(main())
