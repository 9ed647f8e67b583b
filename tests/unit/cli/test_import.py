"""`sparsec import` as a user meets it: what is written, what is said, and when nothing is written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from invoking import invoke

SCORES = "0.1\t0.9\n0.3\t0.7\n"
BAD = {
    "not UTF-8": b"0.1\t\xff",
    "NUL": b"0.1\t\0",
    "huge": b"0\n" * (1 << 20),
    "empty": b"",
    "binary": bytes(range(256)) * 20,
    "nested": b"[" * 5000,
    "number": b"9" * 5000 + b"x",
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    path = tmp_path / "scores.tsv"
    path.write_text(SCORES)
    return path


def test_duo_writes_a_file_that_check_and_fmt_pass(scores: Path) -> None:
    out = scores.with_name("duo.sparse")
    result = invoke("import", "duo", scores, "--sparsity", "0.5", "--sink", "4", "--recent", "8", "-o", out)
    said = "2 of the 4 KV groups see everything, with scores from 0.7; 2 (50.0%) stream"
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"wrote {out}: {said}\n", "")
    assert invoke("check", out).stdout == "1 file: no problems\n"
    assert invoke("fmt", "--check", out).exit_code == 0
    assert names(out.parent) == ["duo.sparse", "scores.tsv"]
    text = out.read_text()
    assert "param first = 4\nparam latest = 8\n" in text and "heads" not in text
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o666 & ~umask


def test_minference_writes_a_file_that_check_and_fmt_pass(tmp_path: Path) -> None:
    table, out = tmp_path / "table.json", tmp_path / "minference.sparse"
    table.write_text('[{"0": ["vertical_and_slash", 1000, 6096, 2.5], "1": ["stream_llm", 64, 512, 1]}]')
    result = invoke("import", "minference", table, "-o", out)
    said = "1 vertical_and_slash head, 1 stream_llm head"
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"wrote {out}: {said}\n", "")
    assert invoke("check", out).exit_code == 0
    assert invoke("fmt", "--check", out).exit_code == 0


def test_a_file_that_exists_is_replaced_with_force_alone(scores: Path) -> None:
    out = scores.with_name("duo.sparse")
    out.write_text("mine")
    out.chmod(0o640)
    result = invoke("import", "duo", scores, "-o", out)
    assert (result.exit_code, result.stderr) == (2, f"error: {out} exists: --force replaces it\n")
    assert out.read_text() == "mine"
    assert invoke("import", "duo", scores, "-o", out, "--force", "--heads", "8").exit_code == 0
    assert "    heads 8 kv 2\n" in out.read_text()
    assert stat.S_IMODE(out.stat().st_mode) == 0o640


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
@pytest.mark.parametrize("command", ["duo", "minference"])
def test_bad_tables_write_nothing(tmp_path: Path, command: str, data: bytes) -> None:
    table, out = tmp_path / "table", tmp_path / "out.sparse"
    table.write_bytes(data)
    result = invoke("import", command, table, "-o", out)
    assert result.exit_code == 1
    assert f"{table}:" in result.stderr and "error[E" in result.stderr and result.stdout == ""
    assert names(tmp_path) == ["table"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sparsity", "nan"), "from 0 to 1, got nan"),
        (("--sparsity", "1.5"), "sparsity"),
        (("--sink", "-1"), "sink"),
        (("--recent", "0"), "recent"),
        (("--heads", "3"), "expected heads that split into the 2 KV groups of the table, got 3"),
    ],
)
def test_wrong_options(scores: Path, arguments: tuple[str, ...], message: str) -> None:
    result = invoke("import", "duo", scores, "-o", scores.with_name("out.sparse"), *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert names(scores.parent) == ["scores.tsv"]


def test_files_that_cannot_be_read_or_written(scores: Path) -> None:
    assert invoke("import", "duo", scores.with_name("none"), "-o", scores.with_name("out.sparse")).exit_code == 2
    assert invoke("import", "duo", scores).exit_code == 2
    result = invoke("import", "duo", scores, "-o", scores.with_name("none") / "out.sparse")
    assert result.exit_code == 2
    assert result.stderr == f"error: {scores.with_name('none') / 'out.sparse'}: No such file or directory\n"


def test_each_table_has_its_help() -> None:
    for name in ("duo", "minference"):
        assert f"Example: sparsec import {name} " in " ".join(invoke("import", name, "--help").stdout.split())
