"""The changelog has the form of Keep a Changelog, and a section for the version at hand."""

from __future__ import annotations

import re
from pathlib import Path

from sparsec import __version__

TEXT = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_unreleased_changes_come_first_and_the_version_has_a_section() -> None:
    versions = re.findall(r"^## \[(.+?)\]", TEXT, re.MULTILINE)
    assert versions[0] == "Unreleased" and versions[1] == __version__
    assert len(set(versions)) == len(versions)


def test_each_section_has_known_kinds_once() -> None:
    for section in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.+)$", section, re.MULTILINE)
        assert kinds and set(kinds) <= KINDS and len(set(kinds)) == len(kinds)
