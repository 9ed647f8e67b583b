"""A site of the pages of this repository, by `python examples/guides/build_site.py FOLDER`.

The reference of Python is made of the docstrings, that of the command line of `--help`. The folder must be new or
empty. The extra `docs` installs what it needs.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
GUIDES = (
    "tutorial",
    "inputs",
    "training",
    "caches",
    "serving",
    "flexattention",
    "huggingface",
    "verifying",
    "editor",
    "artefacts",
)
MODULES = (
    *("sparsec", "sparsec.runtime.compile", "sparsec.runtime.module", "sparsec.runtime.kv.cache", "sparsec.nn"),
    *("sparsec.distributed", "sparsec.integrations.transformers", "sparsec.integrations.flex", "sparsec.testing"),
)
"""The public ones, in the order of the site."""
LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?P<path>[^)\s:#]+)(?P<anchor>#[^)]*)?\)")


def navigation() -> list[dict[str, Any]]:
    guides = {f"examples/guides/{name}.md": None for name in GUIDES}
    return [
        {"sparsec": "README.md"},
        {"Guides": ["examples/guides/README.md", *guides, "examples/README.md"]},
        {"Reference": ["grammar/README.md", "command_line.md", "python.md"]},
        {
            "How it works": [
                *("sparsec/STAGES.md", "sparsec/ir/README.md", "sparsec/prove/README.md", "sparsec/runtime/README.md"),
                *("sparsec/backends/README.md", "templates/README.md", "sparsec/imports/README.md"),
            ]
        },
        {"Contributing": ["CONTRIBUTING.md", "tests/gpu/README.md", "tests/mutants/TABLE.md", "CHANGELOG.md"]},
    ]


def pages(of: Any) -> Iterator[str]:
    """The paths of a navigation."""
    match of:
        case str():
            yield of
        case dict():
            for each in of.values():
                yield from pages(each)
        case list():
            for each in of:
                yield from pages(each)


def gather(docs: Path) -> None:
    """Copies the pages, and the files that they link to, to where they lie in the repository. A link to a folder leads
    to its page, and where it has none, is text."""
    known = set(pages(navigation()))
    for page in sorted(known - {"command_line.md", "python.md"}):
        text = (ROOT / page).read_text(encoding="utf-8")

        def target(found: re.Match[str], page: str = page) -> str:
            where = (ROOT / page).parent.joinpath(found["path"]).resolve()
            within = where.relative_to(ROOT).as_posix()
            if where.is_dir():
                there = f"{found['path'].rstrip('/')}/README.md"
                return f"[{found['text']}]({there})" if f"{within}/README.md" in known else found["text"]
            if within not in known:
                (docs / within).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(where, docs / within)
            return found[0]

        (docs / page).parent.mkdir(parents=True, exist_ok=True)
        (docs / page).write_text(LINK.sub(target, text), encoding="utf-8")


def command_line() -> str:
    """A page with the help of every command."""
    from sparsec.cli.main import commands

    parts = ["# The command line\n"]

    def add(command: click.Command, name: str, parent: click.Context | None) -> None:
        context = click.Context(command, info_name=name, parent=parent, terminal_width=100, max_content_width=100)
        parts.append(f"## `{context.command_path}`\n\n```text\n{command.get_help(context)}\n```\n")
        if isinstance(command, click.Group):
            for each in command.list_commands(context):
                found = command.get_command(context, each)
                if found is not None and not found.hidden:
                    add(found, each, context)

    add(commands, "sparsec", None)
    return "\n".join(parts)


def python_reference() -> str:
    """A page of directives, which mkdocstrings replaces by the docstrings."""
    return "# Python\n\n" + "\n".join(f"## `{name}`\n\n::: {name}\n" for name in MODULES)


def build(folder: Path) -> None:
    """Writes the site to a folder that is new or empty. A link that leads nowhere is an error."""
    from mkdocs.commands.build import build as build_site
    from mkdocs.config import load_config

    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"expected a new or an empty folder, got {folder}")
    options = {
        "docstring_style": None,
        "show_source": False,
        "show_root_heading": False,
        "show_root_toc_entry": False,
        "heading_level": 3,
        "members_order": "source",
        "show_if_no_docstring": False,
        "filters": ["!^_"],
        "allow_inspection": False,
    }
    with tempfile.TemporaryDirectory() as scratch:
        docs, site = Path(scratch, "docs"), Path(scratch, "site")
        docs.mkdir()
        gather(docs)
        (docs / "command_line.md").write_text(command_line(), encoding="utf-8")
        (docs / "python.md").write_text(python_reference(), encoding="utf-8")
        Path(scratch, "mkdocs.yml").write_text("site_name: sparsec\n", encoding="utf-8")
        config = load_config(
            config_file=str(Path(scratch, "mkdocs.yml")),
            docs_dir=str(docs),
            site_dir=str(site),
            nav=navigation(),
            exclude_docs="!/templates/",
            use_directory_urls=False,
            strict=True,
            plugins=["search", {"mkdocstrings": {"handlers": {"python": {"paths": [str(ROOT)], "options": options}}}}],
            markdown_extensions=["tables", "fenced_code", "toc"],
            validation={"links": {"anchors": "warn"}},
        )
        build_site(config)
        shutil.copytree(site, folder, dirs_exist_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    build(parser.parse_args().folder)
