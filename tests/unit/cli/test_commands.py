"""The command line as a user meets it: output, exit codes, and no traceback for a user's mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from sparsec import __version__
from sparsec.bench import baseline_calls as peer_calls
from sparsec.bench import baselines as peers
from sparsec.cli.main import commands
from sparsec.diagnostics.model import InternalError
from sparsec.integrations import flex

GOOD = "pattern p(w = 64) { causal  attend window(w) | sink(4) }\n"
BAD = "pattern p { attend windw(3) }\npattern q { attend window(0) }\n"
HOSTILE = {
    "not UTF-8": b"pattern p { attend \xff }",
    "NUL": b"pattern p { attend \0 full }",
    "huge": b"#" * (1 << 20) + b"\n",
    "empty": b"",
    "binary": bytes(range(256)) * 20,
    "nested": b"pattern p { attend " + b"(" * 5000,
    "number": b"pattern p { attend window(" + b"9" * 5000 + b") }",
}


def invoke(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(commands, [str(argument) for argument in arguments], prog_name="sparsec")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.sparse"
    path.write_text(GOOD)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.sparse"
    path.write_text(BAD)
    return path


@pytest.fixture
def two(tmp_path: Path) -> Path:
    path = tmp_path / "two.sparse"
    path.write_text("pattern a { causal attend window(8) }\npattern b { attend full }\n")
    return path


def test_version_and_help_of_every_command() -> None:
    assert __version__ in invoke("--version").stdout
    assert sorted(commands.commands) == ["bench", "check", "compile", "explain", "fmt", "run", "show", "verify"]
    for name in commands.commands:
        text = invoke(name, "--help").stdout
        assert f"Example: sparsec {name} " in " ".join(text.split()), name


def test_python_m_sparsec() -> None:
    run = subprocess.run([sys.executable, "-m", "sparsec", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"sparsec, version {__version__}\n"


def test_check_of_a_clean_file(good: Path) -> None:
    result = invoke("check", good)
    assert (result.exit_code, result.stdout) == (0, "1 file: no problems\n")


def test_check_reports_every_file_and_counts(good: Path, bad: Path) -> None:
    result = invoke("check", bad, good)
    assert result.exit_code == 1
    assert f"{bad}:1:20: error[E101]" in result.stdout
    assert f"{bad}:2:" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("2 files: 2 errors")


def test_warnings_do_not_fail(tmp_path: Path) -> None:
    path = tmp_path / "warns.sparse"
    path.write_text("pattern p { heads 1 causal attend window(8) | window(4) }")
    result = invoke("check", path)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "1 file: 1 warning"


def test_check_as_json(bad: Path) -> None:
    result = invoke("check", "--format", "json", bad)
    assert result.exit_code == 1
    assert {record["code"] for record in json.loads(result.stdout)} >= {"E101"}
    assert json.loads(invoke("check", "--format", "json", bad.with_name("good.sparse")).stdout or "[]") == []


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_check_of_hostile_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "hostile.sparse"
    path.write_bytes(data)
    result = invoke("check", path)
    assert result.exit_code == 1
    assert "error[" in result.stdout


@pytest.mark.parametrize("name", ["check", "fmt", "show", "run", "verify", "bench"])
def test_missing_files_and_folders_are_wrong_usage(tmp_path: Path, name: str) -> None:
    missing = invoke(name, tmp_path / "missing.sparse")
    assert missing.exit_code == 2
    assert "does not exist" in missing.stderr
    assert invoke(name, tmp_path).exit_code == 2
    assert invoke(name).exit_code == 2


def test_a_file_that_cannot_be_read(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    result = invoke("check", good)
    assert result.exit_code == 2
    assert result.stderr == f"error: {good}: Permission denied\n"


def test_file_names_that_are_no_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.sparse"
    Path(os.fsdecode(path)).write_text(BAD)
    run = subprocess.run([sys.executable, "-m", "sparsec", "check", path], capture_output=True, check=False)
    assert run.returncode == 1
    assert b"Traceback" not in run.stderr


def test_fmt_writes_once_and_keeps_the_mode(good: Path) -> None:
    good.chmod(0o640)
    assert invoke("fmt", "--check", good).exit_code == 1
    assert good.read_text() == GOOD
    first = invoke("fmt", good)
    assert (first.exit_code, first.stdout) == (0, f"reformatted {good}\n")
    assert good.read_text() != GOOD
    assert good.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in good.parent.iterdir()] == [good.name]
    again = invoke("fmt", "--check", good)
    assert (again.exit_code, again.stdout) == (0, "")


def test_fmt_follows_a_link_and_leaves_it(good: Path) -> None:
    link = good.with_name("link.sparse")
    link.symlink_to(good)
    assert invoke("fmt", link).exit_code == 0
    assert link.is_symlink()
    assert good.read_text() != GOOD


def test_fmt_refuses_broken_files_and_goes_on(tmp_path: Path, good: Path) -> None:
    broken = tmp_path / "broken.sparse"
    broken.write_text("pattern p { attend ")
    result = invoke("fmt", broken, good)
    assert result.exit_code == 1
    assert "error[" in result.stderr
    assert broken.read_text() == "pattern p { attend "
    assert result.stdout == f"reformatted {good}\n"


def test_fmt_leaves_the_file_when_writing_fails(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", refuse)
    result = invoke("fmt", good)
    assert (result.exit_code, result.stderr) == (2, "error: No space left on device\n")
    assert good.read_text() == GOOD
    assert len(list(good.parent.iterdir())) == 1


def test_show_draws_tiles(good: Path) -> None:
    result = invoke("show", good, "--seq-len", "256", "--heads", "2")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:7] == ["p: 256 queries, 256 keys", "", "heads 0-1", "▓···", "▓▓··", "▓▓▓·", "▓·▓▓"]
    assert lines[-1].startswith("live: ")
    assert lines[-1].endswith("% of the causal pairs")
    wider = invoke("show", good, "--seq-len", "256", "--set", "w=300").stdout.splitlines()
    assert wider[3:7] == ["▓···", "█▓··", "██▓·", "███▓"]


def test_show_as_svg_to_a_file(good: Path) -> None:
    target = good.with_name("out.svg")
    assert invoke("show", good, "--format", "svg", "-o", target).exit_code == 0
    assert target.read_text().startswith("<svg ")
    assert invoke("show", good, "--format", "html").stdout.startswith("<!DOCTYPE html>")


def test_show_takes_the_first_pattern_and_says_so(two: Path) -> None:
    result = invoke("show", two, "--seq-len", "64")
    assert result.stdout.startswith("a: ")
    assert result.stderr == "taking the first pattern, a; --pattern takes another: b\n"
    named = invoke("show", two, "--seq-len", "64", "--pattern", "b")
    assert named.stdout.startswith("b: ")
    assert named.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pattern", "nope"), "got 'nope'"),
        (("--set", "nope=3"), "nope"),
        (("--set", "w=full"), "w"),
        (("--set", "w"), "NAME=VALUE"),
        (("--set", "w=3", "--set", " w=9"), "expected each name once, got 'w' twice"),
        (("--heads", "6", "--kv-heads", "4"), "divide"),
        (("--heads", "0"), "heads"),
        (("--head", "8"), "below 8"),
        (("--seq-len", "0"), "seq-len"),
        (("--format", "png"), "format"),
        (("--frob",), "frob"),
    ],
)
def test_wrong_options(good: Path, arguments: tuple[str, ...], message: str) -> None:
    result = invoke("show", good, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_one_is_one(good: Path) -> None:
    assert invoke("show", good, "--seq-len", "1").stdout.startswith("p: 1 query, 1 key\n")
    assert "bfloat16, 1 token\n" in invoke("explain", good, "--seq-len", "1").stdout


@pytest.mark.parametrize("name", ["show", "run", "verify", "bench"])
def test_errors_in_the_file_and_sets_known_at_run_time(bad: Path, name: str) -> None:
    assert "error[E101]" in (result := invoke(name, bad)).stderr
    assert result.exit_code == 1
    bad.write_text("pattern p { input x : columns  attend x }")
    result = invoke(name, bad)
    assert result.exit_code == 1
    assert "error[E501]" in result.stderr


def test_run_compiles_compares_and_times(good: Path) -> None:
    result = invoke("run", good, "--seq-len", "320", "--heads", "4", "--kv-heads", "2", "--head-dim", "16", "--no-flex")
    assert result.exit_code == 0, result.output
    assert "p: 320 tokens, 4 heads on 2 KV heads, head dim 16, float32 on cpu" in result.stdout
    assert "% of the causal pairs" in result.stdout
    assert "passed" in result.stdout
    assert "SDPA dense causal" in result.stdout
    assert "FlexAttention" not in result.stdout


def test_run_fails_when_the_error_is_too_large(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = peers.compare

    def spoiled(*arguments: object) -> peers.Comparison:
        pattern, q, k, v, out = arguments
        return honest(pattern, q, k, v, out + 1e-3)  # type: ignore[arg-type, operator]

    monkeypatch.setattr(peers, "compare", spoiled)
    result = invoke("run", good, "--seq-len", "200", "--head-dim", "16", "--no-flex")
    assert result.exit_code == 1
    assert "FAILED" in result.stdout


def test_run_says_why_flex_attention_did_not_run(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise flex.FlexUnavailable("no C++ compiler")

    monkeypatch.setattr(peer_calls, "compile_flex", refuse)
    result = invoke("run", good, "--seq-len", "200", "--head-dim", "16")
    assert result.exit_code == 0, result.output
    assert "FlexAttention did not run: no C++ compiler" in result.stdout


def test_run_on_a_device_that_is_not_there(good: Path) -> None:
    result = invoke("run", good, "--device", "cuda:77")
    assert result.exit_code == 2
    assert "expected a device of this machine" in result.stderr


def test_bench_as_json_at_two_lengths(good: Path) -> None:
    arguments = ("--seq-len", "128", "--seq-len", "256", "--head-dim", "16", "--against", "sdpa", "--repeats", "1")
    result = invoke("bench", good, *arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [each["seq_len"] for each in found["results"]] == [128, 256]
    for each in found["results"]:
        assert each["causal"]
        assert each["live_exact"]
        assert each["ideal_speed_up"] == pytest.approx(1 / each["live_fraction"])
        assert each["speed_up"]["sdpa"] == pytest.approx(each["peers_ms"]["sdpa"] / each["ms"])
        assert each["achieved_over_ideal"] == pytest.approx(each["speed_up"]["sdpa"] / each["ideal_speed_up"])
        pairs = each["live_fraction"] * 8 * each["seq_len"] * (each["seq_len"] + 1) / 2
        assert each["useful_gflops"] == pytest.approx(4 * 16 * pairs / each["ms"] / 1e6)


def test_bench_of_the_gradients(good: Path) -> None:
    arguments = ("--seq-len", "128", "--head-dim", "16", "--repeats", "1", "--backward", "--device", "cpu")
    result = invoke("bench", good, *arguments)
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if line.startswith("128 ")]
    assert ["forward + backward" in row for row in rows] == [True, False]
    assert all(row.count("x") == 3 for row in rows), "beside sdpa and eager, and the ideal"
    assert "FlexAttention did not run: it has no backward pass on a CPU" in result.stdout
    result = invoke("bench", good, *arguments, "--against", "eager", "--format", "json")
    (found,) = json.loads(result.stdout)["results"]
    assert sorted(found["both_ms"]) == sorted(found["backward_ms"]) == ["eager", "sparsec"]
    assert found["both_speed_up"]["eager"] == pytest.approx(found["both_ms"]["eager"] / found["both_ms"]["sparsec"])
    assert invoke("bench", good, "--against", "eager").exit_code == 2


def test_bench_as_a_table(good: Path) -> None:
    result = invoke("bench", good, "--seq-len", "128", "--head-dim", "16", "--against", "none", "--repeats", "1")
    assert result.exit_code == 0, result.output
    head = next(line for line in result.stdout.splitlines() if line.startswith("tokens"))
    assert head.split()[:3] == ["tokens", "live", "ms"]
    assert "sdpa" not in head
    assert invoke("bench", good, "--against", "sdpa,nope").exit_code == 2


def test_compile_writes_a_folder_and_a_table(good: Path) -> None:
    target = good.with_name("built")
    result = invoke("compile", good, "-o", target, "--head-dim", "16")
    assert result.exit_code == 0, result.output
    head, _, *rows = result.stdout.split("\n\n")[0].splitlines()
    assert head.split()[0] == "kernel"
    kernels = ("forward", "attend_chunk", "attend_rows", "store", "backward")
    assert [row.split()[0] for row in rows] == [f"sparsec_{kernel}" for kernel in kernels]
    assert {"manifest.json", "layout.json"} <= {path.name for path in target.iterdir()}
    assert result.stderr == ""


def test_compile_says_what_a_cache_keeps_and_why_there_is_none(two: Path) -> None:
    two.write_text("pattern a { causal attend window(8) | random(2) }\npattern b { attend full }\n")
    target = two.with_name("built")
    growing = invoke("compile", two, "--pattern", "a", "-o", target, "--head-dim", "16", "--inference")
    assert growing.exit_code == 0, growing.output
    assert f"{two}:1:9: warning[W605]" in growing.stderr and "random(2)" in growing.stderr
    without = invoke("compile", two, "--pattern", "b", "-o", target, "--head-dim", "16", "--inference")
    assert without.exit_code == 0, without.output
    assert without.stderr.startswith("note: pattern `b` has no KV cache: ") and "later key" in without.stderr
    assert [row.split()[0] for row in without.stdout.splitlines()[2:3]] == ["sparsec_forward"]
    assert json.loads((target / "layout.json").read_text())["groups"] is None


def test_compile_for_a_gpu_that_is_not_here(good: Path) -> None:
    target = good.with_name("built")
    arguments = ("--target", "cuda:80", "--dtype", "float16", "--heads", "2", "--inference")
    result = invoke("compile", good, "-o", target, *arguments)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.split("\n\n")[0].splitlines()[2:]]
    assert [row[0] for row in rows] == ["forward_0", "attend_0", "decode_0", "merge", "store"]
    _, registers, spills, stack, shared, tensor_cores = rows[0]
    assert int(registers) > 0
    assert (int(spills), int(stack)) == (0, 0)
    assert int(shared) > 0
    assert int(tensor_cores) > 0


def test_compile_wants_a_known_target_one_pattern_and_a_folder_of_its_own(good: Path, two: Path) -> None:
    target = good.with_name("built")
    for name in ("cuda", "tpu:4", "interpreter"):
        result = invoke("compile", good, "-o", target, "--target", name)
        assert (result.exit_code, "--target" in result.stderr) == (2, True), result.output
    assert invoke("compile", two, "-o", target).exit_code == 2
    assert invoke("compile", good).exit_code == 2
    assert invoke("compile", good, "-o", good.parent).exit_code == 2
    assert not target.exists()


def test_an_interrupt_is_clean_and_a_broken_invariant_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(error: BaseException) -> click.Command:
        def callback() -> None:
            raise error

        return click.Command("probe", callback=callback)

    monkeypatch.setitem(commands.commands, "probe", raising(KeyboardInterrupt()))
    result = invoke("probe")
    assert (result.exit_code, result.stderr) == (130, "\ninterrupted\n")
    monkeypatch.setitem(commands.commands, "probe", raising(InternalError("tiles overlap")))
    assert isinstance(CliRunner().invoke(commands, ["probe"]).exception, InternalError)


def test_run_takes_scores_sinks_and_documents(good: Path) -> None:
    good.write_text("pattern p { heads 4 kv 2  softcap 9  alibi  learned_sink  documents  causal  attend window(70) }")
    result = invoke("run", good, "--seq-len", "320", "--head-dim", "16", "--no-flex")
    assert result.exit_code == 0, result.stderr
    assert "passed" in result.stdout
    assert "documents: one that fills the sequence" in result.stdout
    assert "sdpa runs without: softcap, alibi, learned sink" in result.stdout
    result = invoke("bench", good, "--seq-len", "64", "--head-dim", "16", "--repeats", "1", "--against", "none")
    assert result.exit_code == 0, result.stderr
    assert "documents: one that fills the sequence" in result.stdout and "without" not in result.stdout
