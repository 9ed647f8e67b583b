"""Standard input, folders, what tools read of problems, lengths, and the commands that list a file and the cache."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from invoking import GOOD, invoke

from sparsec import __version__
from sparsec.cli.main import commands
from sparsec.runtime.build.cache import build_key, publish

WARNS = "pattern p { heads 1 causal attend window(8) | window(4) }\n"
BAD = "pattern p { attend windw(64) }\n"


def fed(text: str | bytes, *arguments: str) -> Result:
    result = CliRunner().invoke(commands, arguments, input=text, prog_name="sparsec")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "a.sparse").write_text(GOOD)
    (tmp_path / "sub" / "b.sparse").write_text(BAD)
    (tmp_path / ".hidden" / "c.sparse").write_text(BAD)
    (tmp_path / "notes.txt").write_text(BAD)
    return tmp_path


def test_check_reads_standard_input_and_folders(folder: Path) -> None:
    assert fed(GOOD, "check", "-").stdout == "1 file: no problems\n"
    told = fed(BAD, "check", "-")
    assert told.exit_code == 1 and "<stdin>:1:20: error[E101]" in told.stdout
    assert "error[" in fed(b"\xff", "check", "-").stdout
    found = invoke("check", folder)
    assert found.exit_code == 1 and found.stdout.splitlines()[-1] == "2 files: 1 error"
    assert "sub/b.sparse:1:20" in found.stdout
    assert invoke("check", folder, folder / "a.sparse").stdout.splitlines()[-1] == "2 files: 1 error"
    empty = invoke("check", folder / ".hidden" / "..", folder / "sub" / "..")
    assert empty.exit_code == 1
    (folder / "empty").mkdir()
    none = invoke("check", folder / "empty")
    assert none.exit_code == 2 and "expected a folder with files that end in .sparse" in none.stderr


def test_other_commands_read_standard_input(tmp_path: Path) -> None:
    assert "pattern p" in fed(GOOD, "list", "-").stdout
    assert "64 queries" in fed(GOOD, "show", "-", "--seq-len", "64").stdout
    (tmp_path / "base.sparse").write_text(GOOD)
    text = 'import "base.sparse"\npattern q { attend p }\n'
    assert "error[E017]" in fed(text, "check", "-").stdout
    assert fed(text, "check", "-", "--root", str(tmp_path)).exit_code == 0


def test_strict_fails_for_warnings() -> None:
    assert fed(WARNS, "check", "-").exit_code == 0
    assert fed(WARNS, "check", "--strict", "-").exit_code == 1
    assert fed(GOOD, "check", "--strict", "-").exit_code == 0


def test_sarif(tmp_path: Path) -> None:
    path = tmp_path / "a b.sparse"
    path.write_text("# \U0001f600\n" + BAD.replace("p {", "q { # \U0001f600\n"), encoding="utf-8")
    warns = tmp_path / "warns.sparse"
    warns.write_text(WARNS)
    done = invoke("check", "--format", "sarif", path, warns)
    assert done.exit_code == 1
    (run,) = json.loads(done.stdout)["runs"]
    assert run["tool"]["driver"]["version"] == __version__ and run["columnKind"] == "utf16CodeUnits"
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    by_level = {result["level"]: result for result in run["results"]}
    assert set(by_level) == {"error", "warning"}
    place = by_level["error"]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"].endswith("a%20b.sparse")
    assert (place["region"]["startLine"], place["region"]["endLine"]) == (3, 3)
    line = path.read_text(encoding="utf-8").splitlines()[2]
    assert line[place["region"]["startColumn"] - 1 : place["region"]["endColumn"] - 1] == "windw"
    assert "help: " in by_level["error"]["message"]["text"]
    assert json.loads(fed(GOOD, "check", "--format", "sarif", "-").stdout)["runs"][0]["results"] == []


def test_github(tmp_path: Path) -> None:
    path = tmp_path / "a,b:c%.sparse"
    path.write_text(BAD)
    (line,) = invoke("check", "--format", "github", path).stdout.splitlines()
    assert line.startswith("::error file=") and "a%2Cb%3Ac%25.sparse,line=1,endLine=1,col=20," in line
    assert "title=sparsec E101::" in line and "%0Ahelp: " in line
    assert fed(GOOD, "check", "--format", "github", "-").stdout == ""


def test_fmt_of_standard_input_and_its_difference(good: Path) -> None:
    laid_out = fed(GOOD, "fmt", "-")
    assert laid_out.exit_code == 0 and laid_out.stdout.startswith("pattern p(w = 64) {\n")
    assert fed(laid_out.stdout, "fmt", "-").stdout == laid_out.stdout
    assert fed(laid_out.stdout, "fmt", "--check", "-").exit_code == 0
    told = invoke("fmt", "--diff", good)
    assert told.exit_code == 1 and good.read_text() == GOOD
    assert told.stdout.startswith(f"--- {good}\n+++ {good} (formatted)\n@@ ") and f"-{GOOD}" in told.stdout
    invoke("fmt", good)
    assert (invoke("fmt", "--diff", good).exit_code, invoke("fmt", "--diff", good).stdout) == (0, "")
    failed = fed("pattern {", "fmt", "-")
    assert (failed.exit_code, failed.stdout) == (1, "")


@pytest.mark.parametrize(
    ("given", "tokens"), [("128", "128 tokens"), ("2k", "2048 tokens"), ("0k", None), ("k", None), ("1.5k", None)]
)
def test_lengths(good: Path, given: str, tokens: str | None) -> None:
    done = invoke("explain", good, "--seq-len", given)
    if tokens is None:
        assert done.exit_code == 2 and "--seq-len" in done.stderr
    else:
        assert done.exit_code == 0 and tokens in done.stdout


def test_list(tmp_path: Path) -> None:
    (tmp_path / "base.sparse").write_text("pattern near { attend window(4) }\n")
    path = tmp_path / "p.sparse"
    path.write_text(
        'import "base.sparse" as base\nparam n = 4k\n# Near keys.\n# And a sink.\n'
        "pattern p(w = 16b, s = [1, 2]) { heads 4 kv 2  block 16\n input x : tokens  causal  attend window(w) | x }\n"
        "model m { layers 2  use p }\n"
    )
    text = invoke("list", path).stdout
    assert text == (
        "param n = 4k\n"
        "pattern p(w = 16b, s = [1, 2])  # 4 heads on 2 KV heads; inputs x\n    Near keys. And a sink.\n"
        "model m\npattern base.near  # imported\n"
    )
    found = json.loads(invoke("list", path, "--format", "json").stdout)
    assert [item["name"] for item in found] == ["n", "p", "m", "base.near"]
    assert found[1]["defaults"] == {"w": "16b", "s": "[1, 2]"} and found[1]["kv_heads"] == 2


def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEC_CACHE_DIR", str(tmp_path / "kept"))
    assert invoke("cache").stdout == f"{tmp_path / 'kept'}: 0 entries, 0.0 MB\n"
    folder = publish(build_key("one"), {"kernel.so": b"x" * 2_000_000})
    (tmp_path / "kept" / "mine.txt").write_text("mine")
    left, fresh = (tmp_path / "kept" / name for name in (".new-dead", ".new-alive"))
    left.mkdir()
    fresh.mkdir()
    os.utime(left, (0, 0))
    assert "1 entry, 2.0 MB" in invoke("cache").stdout
    assert invoke("cache", "--clear").stdout.endswith("1 entry, 2.0 MB, cleared\n")
    assert not folder.exists() and not left.exists() and fresh.exists()
    assert (tmp_path / "kept" / "mine.txt").read_text() == "mine"
    assert "0 entries" in invoke("cache").stdout
