"""No byte that a user wrote reaches generated code: a hostile name gives the very text that an innocent one gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from generated import generated
from names import IDENTIFIERS, PAYLOADS

import sparsec
from sparsec.backends.cpu import kernel as cpu
from sparsec.diagnostics.model import CallError, DiagnosticError
from sparsec.program import Pattern
from sparsec.runtime.build.artefact import compile_to_directory, load_compiled
from sparsec.sema.checks.scope import reserved

USES = 8
"""Places of a name in TEXT."""
TEXT = """\
# {9}
param {0} = 3  # {9}
param {1} = 2b
# {9}
pattern {2}({3} = 16, {4} = [0]) {{  # {9}
    heads 4 kv 2  block 16  causal  softcap 2
    let {5} = sink({3})  # {9}
    let {6} = {0} + 1
    where g in {4} attend {5} | window({1}) | stride(3b, phase = -g * {6})  # {9}
    otherwise attend {7}({8} = {3})
}}
pattern {7}({8} = 1) {{ attend window({8} + 4) | sink({0}) }}
# {9}"""


def pattern(names: tuple[str, ...], comment: str, filename: str = "<string>") -> Pattern:
    named = (*names, *"abcdefijm")[: USES + 1]
    return sparsec.parse(TEXT.format(*named, comment), filename).pattern(named[2])


@pytest.fixture(scope="module")
def innocent() -> Mapping[str, str]:
    return generated(pattern((), "quiet").resolve(), torch.float32)


def test_there_are_enough() -> None:
    assert len(IDENTIFIERS) >= 150 and len(PAYLOADS) >= 100
    assert not reserved() & set(IDENTIFIERS)


@pytest.mark.parametrize("first", range(0, len(IDENTIFIERS), USES))
def test_names_and_comments_leave_no_trace_in_the_pattern(first: int) -> None:
    """What the lowering starts from: terms of integers, and origins that quote the language's own words."""
    expected = repr(pattern((), "quiet").resolve())
    for shift in range(USES + 1):
        names = [IDENTIFIERS[(first + n) % len(IDENTIFIERS)] for n in range(USES + 1)]
        names = names[shift:] + names[:shift]  # each name in each place
        found = pattern(tuple(names), PAYLOADS[(first + shift) % len(PAYLOADS)].replace("\n", " ").replace("\0", " "))
        assert repr(found.resolve()) == expected


@pytest.mark.parametrize("quarter", range(4))
def test_generated_text_is_that_of_innocent_names(quarter: int, innocent: Mapping[str, str]) -> None:
    """A quarter of the payloads in the comments and in the file's name, and names of every sort."""
    comment = " ".join(PAYLOADS[quarter::4]).replace("\n", " ").replace("\0", " ")
    names = (*LONGEST, *IDENTIFIERS[quarter * 40 :])[: USES + 1]
    chosen = pattern(names, comment, filename="/".join(PAYLOADS[quarter::4]))
    assert generated(chosen.resolve(), torch.float32) == innocent


LONGEST = tuple(name for name in IDENTIFIERS if len(name) == 128)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payloads_are_no_names_and_no_values(payload: str) -> None:
    for place in ("pattern {} {{ attend full }}", "pattern p {{ let {} = full attend full }}", "param {} = 1"):
        with pytest.raises(DiagnosticError) as raised:
            sparsec.parse(place.format(f"{payload}x" if payload.startswith("#") else payload))
        assert str(raised.value).replace("\n", "").isprintable(), "no file drives a terminal"
    chosen = sparsec.parse("param n = 3 pattern p(k = [1]) { attend window(n) }")
    for name in ("n", "k"):
        for value in (payload, f"3 {payload}", f"3\n{payload}", f"3 param x = 1 {payload}"):
            try:
                read = chosen.pattern("p", **{name: value})
            except CallError as error:
                assert name in str(error)
            else:  # a comment, or white space, behind a sound value
                assert name == "n" and read.resolve(1) == chosen.pattern("p").resolve(1)
    for call in (lambda: chosen.pattern(payload), lambda: chosen.pattern("p", **{payload: 1})):
        with pytest.raises(CallError):
            call()


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "built.so"
    library.write_bytes(b"no code")
    monkeypatch.setattr(cpu, "compile_shared", lambda source, **_: library)


@pytest.mark.kernels
def test_a_compiled_folder_holds_the_same_files_for_any_names(tmp_path: Path, no_compiler: None) -> None:
    def contents(chosen: Pattern, folder: Path) -> dict[str, bytes]:
        compile_to_directory(chosen, folder, target="cpu", head_dim=32, dtype="float32")
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")}

    expected = contents(pattern((), "quiet"), tmp_path / "innocent")
    odd = [payload for payload in PAYLOADS if not set("/\0") & set(payload) and len(payload) < 200]
    for number, payload in enumerate([p for p in odd if p not in (".", "..")][::8]):
        base = tmp_path / f"in{number}"
        names = (IDENTIFIERS * 2)[number * 8 : number * 8 + USES + 1]
        found = contents(pattern(names, "x", filename=payload), base / payload)
        assert [path.name for path in base.iterdir()] == [payload], "nothing is written beside the folder"
        manifest, innocent = (json.loads(files.pop("manifest.json")) for files in (found, dict(expected)))
        assert manifest.pop("pattern") == names[2] and innocent.pop("pattern") == "c"
        assert manifest == innocent
        assert found == {name: data for name, data in expected.items() if name != "manifest.json"}


@pytest.mark.kernels
@pytest.mark.parametrize("name", ["../innocent/layout.json", "/etc/passwd", "a/b", ".", "..", "", "sub/../layout.json"])
def test_a_manifest_names_no_path_outside_its_folder(name: str, tmp_path: Path, no_compiler: None) -> None:
    folder = tmp_path / "innocent"
    compile_to_directory(pattern((), "quiet"), folder, target="cpu", head_dim=32, dtype="float32")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["layout.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CallError):
        load_compiled(folder)
