"""Files that import what they may not read, or more than anybody reads."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import sparsec
from sparsec.diagnostics.model import DiagnosticError
from sparsec.diagnostics.source import SourceFile
from sparsec.program import check
from sparsec.syntax.imports import MAX_FILES, MAX_IMPORT_DEPTH, Imports, from_disk
from sparsec.syntax.lexer import MAX_BYTES, MAX_DIAGNOSTICS
from sparsec.syntax.parser import read_file

SECRET = "pattern secret { attend full }\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file outside it."""
    (tmp_path / "secret.sparse").write_text(SECRET)
    inner = tmp_path / "inner"
    inner.mkdir()
    return inner


def codes(folder: Path, text: str) -> set[str]:
    """What a file in the folder is refused for; the secret is in no message."""
    path = folder / "main.sparse"
    path.write_text(text + "\npattern p { attend full }\n")
    start = time.process_time()
    with pytest.raises(DiagnosticError) as raised:
        sparsec.load(path)
    assert time.process_time() - start < 5  # the limit is 2 s
    assert "secret {" not in str(raised.value)
    return {each.code for each in raised.value.diagnostics}


@pytest.mark.parametrize(
    "path", ["../secret.sparse", "a/../../secret.sparse", "./../secret.sparse", "{}/secret.sparse", "\x01.sparse"]
)
def test_paths_out_of_the_folder(folder: Path, path: str) -> None:
    assert codes(folder, f'import "{path.format(folder.parent)}"') == {"E018"}


def test_links_are_followed_before_the_folder_is_asked(folder: Path) -> None:
    (folder / "link.sparse").symlink_to(folder.parent / "secret.sparse")
    (folder / "up").symlink_to(folder.parent)
    (folder / "dangling.sparse").symlink_to(folder.parent / "none.sparse")
    for path in ("link.sparse", "up/secret.sparse", "dangling.sparse"):
        assert codes(folder, f'import "{path}"') == {"E018"}
    (folder / "real").mkdir()
    (folder / "real/inner.sparse").write_text(SECRET)
    (folder / "alias.sparse").symlink_to(folder / "real/inner.sparse")
    (folder / "main.sparse").write_text('import "alias.sparse"\npattern p { attend secret }')
    assert sparsec.load(folder / "main.sparse").patterns == ("p", "secret")
    assert codes(folder, 'import "alias.sparse"\nimport "real/inner.sparse" as again') == {"E021"}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system tells no path of an open file")
@pytest.mark.parametrize("swapped", ["real", "real/inner.sparse"])
def test_a_link_that_is_put_there_before_it_is_opened(
    folder: Path, swapped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "real").mkdir()
    for path in (folder / "real/inner.sparse", folder.parent / "inner.sparse"):
        path.write_text(SECRET)
    really = os.open

    def late(path: Path, flags: int) -> int:
        (folder / swapped).rename(folder / "away")
        (folder / swapped).symlink_to(folder.parent if swapped == "real" else folder.parent / "inner.sparse")
        return really(path, flags)

    monkeypatch.setattr("sparsec.syntax.imports.os.open", late)
    with pytest.raises(OSError):
        from_disk(folder / "main.sparse")("real/inner.sparse")


def test_what_is_no_plain_file(folder: Path) -> None:
    os.mkfifo(folder / "pipe.sparse")
    (folder / "folder.sparse").mkdir()
    (folder / "loop.sparse").symlink_to(folder / "loop.sparse")
    for name in ("pipe", "folder", "loop", "none", "main.sparse/x"):
        assert codes(folder, f'import "{name}.sparse"') == {"E017"}
    assert codes(folder, f'import "{"n" * 248}.sparse"') == {"E017"}
    assert codes(folder, f'import "{"n" * 249 + "n"}.sparse"') == {"E018"}


def test_bytes_that_are_no_text(folder: Path) -> None:
    (folder / "latin.sparse").write_bytes(b"# \xe9\npattern q { attend full }")
    (folder / "nul.sparse").write_bytes(b"# \0\npattern q { attend full }")
    (folder / "huge.sparse").write_bytes(b"#" * (1 << 20) + b"##")
    for name, code in (("latin", "E001"), ("nul", "E002"), ("huge", "E003")):
        assert codes(folder, f'import "{name}.sparse"') == {code}


def test_more_files_and_text_than_anybody_reads(folder: Path) -> None:
    for n in range(MAX_FILES + 2):
        (folder / f"wide{n}.sparse").write_text(f"pattern w{n} {{ attend full }}\n")
        (folder / f"deep{n}.sparse").write_text(f'import "deep{n + 1}.sparse"\npattern d{n} {{ attend full }}\n')
        (folder / f"fan{n}.sparse").write_text(
            "".join(f'import "fan{m}.sparse" as f{m}\n' for m in range(n + 1, min(n + 9, MAX_FILES)))
            + "pattern f { attend full }\n"
        )
    (folder / "long.sparse").write_text("# " + "x" * (1 << 19) + "\npattern a { attend full }")
    (folder / "many.sparse").write_text("param n = 1\n" * 4000 + "pattern b { attend full }")
    assert codes(folder, "".join(f'import "wide{n}.sparse"\n' for n in range(MAX_FILES + 2))) == {"E020"}
    assert codes(folder, 'import "deep0.sparse"') == {"E020"}
    assert codes(folder, f'import "deep{MAX_FILES + 2 - MAX_IMPORT_DEPTH}.sparse"') == {"E017"}
    assert codes(folder, 'import "long.sparse"\n# ' + "x" * (1 << 19)) == {"E020"}
    assert "E020" in codes(folder, 'import "many.sparse"\n' + "param m = 1\n" * 5000)
    start = time.process_time()
    codes(folder, 'import "fan0.sparse" as f')
    assert time.process_time() - start < 5


def reads(folder: Path, text: str) -> tuple[list[str], list[str]]:
    """The codes of a file in the folder, and the paths that were read for it, each time."""
    path, asked = folder / "main.sparse", list[str]()
    read = from_disk(path)

    def noted(target: str) -> tuple[str, bytes]:
        asked.append(target)
        return read(target)

    source = SourceFile(str(path), text + "\npattern p { attend full }\n")
    found = check(source, Imports(noted, str(path)))[1]
    return [each.code for each in found], asked


def test_a_file_is_read_once_and_none_after_a_limit(folder: Path) -> None:
    (folder / "latin.sparse").write_bytes(b"# \xe9")
    (folder / "huge.sparse").write_bytes(b"#" * (MAX_BYTES + 2))
    (folder / "half.sparse").write_text("#" * (MAX_BYTES // 3) + "\npattern a { attend full }")
    for n in range(4):
        (folder / f"link{n}.sparse").symlink_to(folder / "half.sparse")
        (folder / f"bad{n}.sparse").write_bytes(b"\xe9" * (MAX_BYTES // 2))
    assert reads(folder, 'import "latin.sparse"\n' * 50) == (["E001"], ["latin.sparse"])
    assert reads(folder, 'import "none.sparse"\n' * 3) == (["E017"] * 3, ["none.sparse"])
    assert reads(folder, 'import "huge.sparse"\nimport "half.sparse"') == (["E003"], ["huge.sparse"])
    wide = "".join(f'import "bad{n}.sparse"\n' for n in range(4))
    assert reads(folder, wide) == (["E001"] * 2, ["bad0.sparse", "bad1.sparse"])
    found, asked = reads(folder, "".join(f'import "link{n}.sparse"\n' for n in range(4)))
    assert found == ["E021", "E020"] and asked == [f"link{n}.sparse" for n in range(3)]
    found, asked = reads(folder, 'import "half.sparse"\nimport "latin.sparse"\n#' + "x" * MAX_BYTES)
    assert not asked and found[-1] == "E003"


def test_more_faults_than_anybody_reads(folder: Path) -> None:
    found, asked = reads(folder, "".join(f'import "none{n}.sparse"\n' for n in range(3000)))
    assert found == ["E017"] * MAX_DIAGNOSTICS + ["E029"] and len(asked) == MAX_DIAGNOSTICS + 1
    (folder / "many.sparse").write_text("".join(f"pattern a{n} {{ attend full }}\n" for n in range(300)))
    (folder / "same.sparse").write_text("".join(f"pattern a{n} {{ attend full }}\n" for n in range(300)))
    path = folder / "main.sparse"
    source = SourceFile(str(path), 'import "many.sparse"\nimport "same.sparse"\npattern p { attend a1 }')
    found = check(source, Imports.of_file(path))[1]
    assert [each.code for each in found] == ["E021"] * MAX_DIAGNOSTICS + ["E029"] and "200 more" in found[-1].message


def test_a_text_imports_no_file(folder: Path) -> None:
    (folder / "main.sparse").write_text('import "x.sparse"\npattern p { attend full }')
    source, _ = read_file(folder / "main.sparse", str(folder / "main.sparse"))
    assert source is not None
    assert {each.code for each in check(source)[1]} == {"E017"}
