"""`sparsec lsp` without its extra, the pictures that it draws, and the hooks that other repositories name."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml
from invoking import GOOD, invoke

from sparsec.cli.lsp import page_of
from sparsec.editor.document import Document, Settings

ROOT = Path(__file__).parents[3]


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("sparsec.lsp.", "pygls", "lsprotocol"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pygls", None)
    monkeypatch.setitem(sys.modules, "lsprotocol", None)
    result = invoke("lsp")
    assert result.exit_code == 1
    assert result.stderr == "error: the language server needs pygls: pip install 'sparsec[lsp]'\n"


def test_a_page_shows_a_pattern_and_none_a_text_with_errors() -> None:
    def page_of_text(text: str, name: str, settings: Settings) -> str | None:
        return page_of(Document("p.sparse", text), name, settings)

    page = page_of_text(GOOD, "p", Settings(heads=2, seq_len=512))
    assert page is not None and "<svg" in page and "p: 512 queries, 512 keys" in page
    assert page_of_text("pattern p { attend nope }", "p", Settings()) is None
    assert page_of_text(GOOD, "q", Settings()) is None
    assert page_of_text("pattern p { heads 3 kv 3  where g == 9 attend full }", "p", Settings()) is None


def test_the_hooks_of_pre_commit_are_commands_for_sparse_files(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(good.parent)
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert [hook["id"] for hook in hooks] == ["sparsec-check", "sparsec-fmt"]
    for hook in hooks:
        program, *arguments = hook["entry"].split()
        assert program == "sparsec" and re.search(hook["files"], good.name)
        assert not re.search(hook["files"], "good.py")
        given = [good.name] if hook.get("pass_filenames", True) else []
        assert invoke(*arguments, *hook.get("args", []), *given).exit_code == 0


def test_the_hook_that_checks_sees_a_file_whose_import_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))[0]
    (tmp_path / "changed.sparse").write_text("pattern renamed { attend full }\n")
    (tmp_path / "user.sparse").write_text('import "changed.sparse"\npattern p { attend before }\n')
    monkeypatch.chdir(tmp_path)
    given = ["changed.sparse"] if hook.get("pass_filenames", True) else []
    result = invoke(*hook["entry"].split()[1:], *hook.get("args", []), *given)
    assert result.exit_code == 1 and "user.sparse:2" in result.stdout
