"""The build cache: private, whole, checked, and safe with many writers."""

from __future__ import annotations

import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from sparsec.runtime.build_cache import build_key, lookup, publish

KEY = build_key("source", "flags")
FILES = {"kernel.so": b"\x7fELF" * 1000, "kernel.cpp": b"int main;"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSEC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_published_is_found(root: Path) -> None:
    assert lookup(KEY) is None
    folder = publish(KEY, FILES)
    assert folder == lookup(KEY) == root / KEY
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert stat.S_IMODE(root.stat().st_mode) == stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in root.iterdir()] == [KEY]


def test_keys_differ_where_their_parts_do() -> None:
    assert len({build_key("a", "bc"), build_key("ab", "c"), build_key("abc"), build_key("a", "b", "c")}) == 4


def test_the_root_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARSEC_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert publish(KEY, FILES) == tmp_path / "xdg" / "sparsec" / KEY
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert publish(KEY, FILES) == tmp_path / "home" / ".cache" / "sparsec" / KEY


@pytest.mark.parametrize("damage", ["change", "cut", "remove", "list", "link", "not a folder"])
def test_a_damaged_entry_is_absent_and_replaced(root: Path, tmp_path: Path, damage: str) -> None:
    library = publish(KEY, FILES) / "kernel.so"
    match damage:
        case "change":
            library.write_bytes(b"\x7fELG" + FILES["kernel.so"][4:])
        case "cut":
            library.write_bytes(FILES["kernel.so"][:-1])
        case "remove":
            library.unlink()
        case "list":
            (library.parent / "SHA256SUMS").write_text(f"{'0' * 64}  ../../etc/passwd\n")
        case "link":
            library.rename(tmp_path / "elsewhere")
            library.symlink_to(tmp_path / "elsewhere")
        case _:
            library.parent.rename(tmp_path / "moved")
            library.parent.write_text("a file in the folder's place")
    assert lookup(KEY) is None
    assert publish(KEY, FILES) == lookup(KEY)
    assert library.read_bytes() == FILES["kernel.so"] and not library.is_symlink()


def test_a_linked_entry_is_absent(root: Path, tmp_path: Path) -> None:
    folder = publish(KEY, FILES)
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    assert lookup(KEY) is None
    assert publish(KEY, FILES) == lookup(KEY)
    assert not folder.is_symlink()


@pytest.mark.parametrize("unsafe", ["link", "open to all", "a file"])
def test_an_unsafe_root_is_left_alone(root: Path, tmp_path: Path, unsafe: str) -> None:
    match unsafe:
        case "link":
            (tmp_path / "target").mkdir(mode=0o700)
            root.symlink_to(tmp_path / "target")
        case "open to all":
            root.mkdir()
            root.chmod(0o777)
        case _:
            root.write_text("in the way")
    with pytest.warns(UserWarning, match="cannot keep builds") as caught:
        folder = publish(KEY, FILES)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lookup(KEY) == folder
    assert root not in folder.parents and stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert not root.is_dir() or not any(root.iterdir())


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "SHA256SUMS"])
def test_only_plain_names(root: Path, name: str) -> None:
    with pytest.raises(ValueError, match="plain file name"):
        publish(KEY, {name: b""})
    with pytest.raises(ValueError, match="hexadecimal"):
        lookup("../" + KEY)


def test_eight_writers_at_once(root: Path) -> None:
    program = (
        "from sparsec.runtime.build_cache import build_key, lookup, publish\n"
        "for n in range(40):\n"
        "    key = build_key(str(n))\n"
        "    folder = lookup(key) or publish(key, {'a': b'x' * 4096 * n, 'b': str(n).encode()})\n"
        "    assert lookup(key) == folder and (folder / 'a').stat().st_size == 4096 * n\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(8)]
    assert [writer.wait(timeout=60) for writer in writers] == [0] * 8
    assert sorted(path.name for path in root.iterdir()) == sorted(build_key(str(n)) for n in range(40))
