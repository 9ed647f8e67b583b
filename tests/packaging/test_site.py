"""The site of the pages: every page and link is there, with the public names of Python and every command."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from sparsec.cli.main import commands

ROOT = Path(__file__).parents[2]
SITE = runpy.run_path(str(ROOT / "examples" / "guides" / "build_site.py"))
OF_PYTHON = ("compile", "load_compiled", "SparseAttention", "KVCache", "SelfAttention", "for_patterns")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("pages") / "site"
    SITE["build"](folder)  # strict: a link or an anchor that leads nowhere ends it
    return folder


def test_pages(site: Path) -> None:
    for page in SITE["pages"](SITE["navigation"]()):
        made = site / ("index.html" if page == "README.md" else page.replace("README.md", "index.html"))
        assert made.with_suffix(".html").is_file(), page
    assert (site / "examples" / "s2.svg").is_file()


def test_references(site: Path) -> None:
    python, line = ((site / f"{name}.html").read_text(encoding="utf-8") for name in ("python", "command_line"))
    for name in OF_PYTHON:
        assert f".{name}</h" in python or f'.{name}"' in python, name
    for name in commands.commands:
        assert f"<code>sparsec {name}</code>" in line, name


def test_each_guide_is_on_it() -> None:
    there = {path.stem for path in (ROOT / "examples" / "guides").glob("*.md")} - {"README"}
    assert there == set(SITE["GUIDES"])


def test_a_folder_that_holds_something_is_left(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine", encoding="utf-8")
    with pytest.raises(SystemExit, match="new or an empty folder"):
        SITE["build"](tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["mine"]
