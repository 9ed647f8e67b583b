"""The command line as a user meets it: output, exit codes, and no traceback for a user's mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from invoking import GOOD, invoke

from sparsec import __version__
from sparsec.cli.main import commands
from sparsec.diagnostics.model import InternalError
from sparsec.editor.document import Settings
from sparsec.pictures.drawing import LONGEST
from sparsec.pictures.methods import DEFAULT_HEADS
from sparsec.pictures.notebook import SEQ_LEN
from sparsec.sema.node import MAX_HEADS, MAX_LAYERS

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


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.sparse"
    path.write_text(BAD)
    return path


def test_version_and_help_of_every_command() -> None:
    assert __version__ in invoke("--version").stdout
    assert sorted(commands.commands) == [
        "bench",
        "cache",
        "check",
        "compile",
        "explain",
        "fmt",
        "import",
        "list",
        "lower",
        "lsp",
        "play",
        "profile",
        "run",
        "show",
        "tune",
        "verify",
    ]
    for name in commands.commands:
        text = invoke(name, "--help").stdout
        assert f"Example: sparsec {name} " in " ".join(text.split()), name


@pytest.mark.kernels
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


@pytest.mark.kernels
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
    assert lines[:2] == ["p: 256 queries, 256 keys", ""] and lines[2].startswith("heads 0-1, 46% live")
    assert lines[3].split() == ["0", "64", "128", "192"]
    assert [line[-64:] for line in lines[4:6]] == ["▓▒" + "·" * 62, "██▓▒" + "·" * 60]
    assert lines[-1] == "live: 46% of the causal pairs"
    wider = invoke("show", good, "--seq-len", "256", "--set", "w=300").stdout.splitlines()
    assert wider[-1] == "live: 100% of the causal pairs"


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
def test_errors_in_the_file(bad: Path, name: str) -> None:
    assert "error[E101]" in (result := invoke(name, bad)).stderr
    assert result.exit_code == 1


def test_run_on_a_device_that_is_not_there(good: Path) -> None:
    result = invoke("run", good, "--device", "cuda:77")
    assert result.exit_code == 2
    assert "expected a device of this machine" in result.stderr


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


def test_limits_of_options_are_those_of_the_language_and_of_pictures() -> None:
    most = {"heads": MAX_HEADS, "kv_heads": MAX_HEADS, "layers": MAX_LAYERS, "seq_len": LONGEST}
    found = set()
    for name, command in commands.commands.items():
        for option in command.params:
            limits = getattr(option.type, "range", option.type)
            if option.name in most and isinstance(limits, click.IntRange):
                assert (name, option.name, limits.max) == (name, option.name, most[option.name])
                found.add(option.name)
    assert found == set(most)
    assert Settings() == Settings(DEFAULT_HEADS, None, SEQ_LEN)
    assert {each.name: each.default for each in commands.commands["show"].params}["seq_len"] == SEQ_LEN
