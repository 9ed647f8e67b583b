"""Every block of code of the README and of the guides runs: Python in one namespace a page, and `sparsec` commands.

A `sparse` block after "Save this as `NAME`" becomes that file; others are checked. Pages run in a folder of their own,
beside `examples` and `tests`. What no test can run stands in blocks of the language `text`, and does not count.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from sparsec import program
from sparsec.cli.main import commands
from sparsec.diagnostics.source import SourceFile

ROOT = Path(__file__).parents[2]
GUIDES = sorted((ROOT / "examples" / "guides").glob("*.md"))
BLOCK = re.compile(
    r"(?:Save this as `(?P<name>[\w.]+)`[^\n]*:\n\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S
)
SETS_UP = re.compile(r"^(?:python3 -m venv|pip install|vllm serve|git |npm )")
"""Commands that make an environment, which CI and the README's own test command run."""


def blocks(page: Path) -> Iterator[re.Match[str]]:
    return BLOCK.finditer(page.read_text(encoding="utf-8"))


def run_command(line: str) -> None:
    words = shlex.split(line, comments=True)
    if not words or SETS_UP.match(line):
        return
    if words[0] == "python":  # examples have tests of their own
        assert (ROOT / words[1]).is_file(), line
        return
    assert words[0] == "sparsec", f"expected a command that a test can run, got {line}"
    done = CliRunner().invoke(commands, words[1:], catch_exceptions=False)
    assert done.exit_code == 0, f"{line}\n{done.output}"


def run_python(code: str, line: int, page: Path, namespace: dict[str, object]) -> None:
    exec(compile("\n" * line + code, str(page), "exec"), namespace)  # tracebacks then have the page's lines


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("examples", "tests", "sparsec", "grammar"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "examples")])
    return tmp_path


@pytest.mark.kernels
@pytest.mark.parametrize("page", [ROOT / "README.md", *GUIDES], ids=lambda page: page.stem)
def test_blocks_run(page: Path, folder: Path) -> None:
    torch.manual_seed(0)
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in blocks(page):
        code, line = block["code"], page.read_text(encoding="utf-8")[: block.start("code")].count("\n")
        match block["language"]:
            case "python":
                run_python(code, line, page, namespace)
            case "sh":
                for command in code.replace("\\\n", " ").splitlines():
                    run_command(command)
            case "sparse":
                _, found = program.check(SourceFile(page.name, code))
                assert not [each for each in found if each.code.startswith("E")]
                if block["name"]:
                    (folder / block["name"]).write_text(code, encoding="utf-8")
            case language:
                assert language == "text", f"{page.name}: no test runs a block of {language}"


def test_each_guide_is_listed() -> None:
    index = (ROOT / "examples" / "guides" / "README.md").read_text(encoding="utf-8")
    for page in GUIDES:
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


def test_a_block_that_fails_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\nx = 1\nassert x == 2\n```\n", encoding="utf-8")
    (block,) = blocks(page)
    with pytest.raises(AssertionError):
        run_python(block["code"], 3, page, {})
    with pytest.raises(AssertionError, match="nowhere"):
        run_command("sparsec check nowhere.sparse")
