"""The build cache: private, whole, checked, and safe with many writers."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

from sparsec.backends.cpu import kernel as cpu
from sparsec.runtime.build.cache import BuildError, _roots, build_key, lookup, publish

pytestmark = pytest.mark.kernels

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


DAMAGES = ("change", "cut", "remove", "list", "short list", "link", "linked list", "another file", "not a folder",
           "open file", "open folder", "another's entry")  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
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
        case "short list":
            (library.parent / "SHA256SUMS").write_text(f"# {KEY}\n")
        case "linked list":
            (library.parent / "SHA256SUMS").rename(tmp_path / "sums")
            (library.parent / "SHA256SUMS").symlink_to(tmp_path / "sums")
        case "another file":
            (library.parent / "sitecustomize.py").write_text("import os")
        case "open file":
            library.chmod(0o660)
        case "open folder":
            library.parent.chmod(0o777)
        case "another's entry":
            other = publish(build_key("another"), FILES | {"kernel.so": b"another"})
            shutil.rmtree(library.parent)
            shutil.copytree(other, library.parent)
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


def test_a_bit_flipped_anywhere_is_found(root: Path) -> None:
    folder = publish(KEY, FILES)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for at in range(0, len(whole), 1 if path.name == "SHA256SUMS" else max(1, len(whole) // 40)):
            for bit in (1, 32) if path.name == "SHA256SUMS" else (1 << at % 8,):
                path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
                assert lookup(KEY) is None, (path.name, at)
        for length in (0, 1, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            assert lookup(KEY) is None, (path.name, length)
        path.write_bytes(whole)
        assert lookup(KEY) == folder


def test_what_another_user_owns_is_absent_and_replaced(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = publish(KEY, FILES)
    honest, foreign = Path.lstat, [folder / "kernel.so"]

    def lstat(path: Path) -> os.stat_result:
        found = honest(path)
        return os.stat_result((*found[:4], found.st_uid + 1, *found[5:10])) if path in foreign else found

    monkeypatch.setattr(Path, "lstat", lstat)
    for path in (folder / "kernel.so", folder / "SHA256SUMS", folder):
        foreign[:] = [path]
        assert lookup(KEY) is None
    before = honest(folder).st_ino
    assert publish(KEY, FILES) == folder and honest(folder).st_ino != before
    foreign.clear()
    assert lookup(KEY) == folder


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_folders_given_to_another_user(root: Path) -> None:
    folder = publish(KEY, FILES)
    os.chown(folder / "kernel.so", 12345, 12345)
    assert lookup(KEY) is None and publish(KEY, FILES) == lookup(KEY)
    os.chown(root, 12345, 12345)
    _roots.cache_clear()
    with pytest.warns(UserWarning, match="cannot keep builds"):
        assert lookup(KEY) is None


KILLED = """
import itertools, os, sys
from pathlib import Path
from sparsec.backends.cpu import kernel as cpu
from sparsec.runtime.build.cache import _roots, build_key, lookup, publish

KEY, FILES, damage = build_key("k"), {"kernel.so": b"code" * 999, "kernel.cpp": b"text"}, sys.argv[1]

os.fsync = lambda handle: None  # what has been written is seen by every process at once

def child(work):
    process = os.fork()
    if not process:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

def damaged():
    folder = publish(KEY, FILES)
    if damage == "damaged":
        (folder / "kernel.so").write_bytes(b"other")
    if damage == "absent":
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()

def killed(step):
    steps = itertools.count()
    def count(*_):
        if next(steps) == step:
            os._exit(9)
    os.fsync = count
    sys.addaudithook(lambda event, _: count() if event.startswith(("os.", "open", "shutil.", "tempfile.")) else None)
    publish(KEY, FILES)

def whole():
    found = lookup(KEY)
    assert found is None or {name: (found / name).read_bytes() for name in FILES} == FILES

def again():
    whole()
    assert publish(KEY, FILES) == lookup(KEY) is not None
    whole()

for step in range(1000):
    assert child(damaged) == 0
    code = child(lambda: killed(step))
    assert child(again) == 0, step
    if code == 0:
        break
    assert code == 9, (code, step)
print(step)
"""


@pytest.mark.parametrize("state", ["absent", "damaged", "whole"])
def test_killed_at_every_step_of_publishing(root: Path, state: str) -> None:
    """Nothing that a killed writer leaves is taken for an entry, or stands in the way of the next writer."""
    run = subprocess.run(
        [sys.executable, "-c", KILLED, state], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 10, "every call that changes the disk is a step"
    assert [path.name for path in root.iterdir() if not path.name.startswith(".")] == [build_key("k")]


def failing(monkeypatch: pytest.MonkeyPatch, where: Path) -> None:
    """Makes what is written below a folder fail, as on a full disk."""
    honest = os.fsync

    def full(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().is_relative_to(where):
            raise OSError(errno.ENOSPC, "no space left")
        honest(handle)

    monkeypatch.setattr(os, "fsync", full)


def test_a_failed_writer_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, Path("/"))
    with pytest.warns(UserWarning, match="no space"), pytest.raises(BuildError, match=r"expected room .*no space"):
        publish(KEY, FILES)
    with pytest.raises(ValueError, match="plain file name"):
        publish(KEY, {"../x": b""})
    assert list(root.iterdir()) == []


def test_a_full_folder_gives_way_to_a_temporary_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = publish(build_key("before"), FILES)
    failing(monkeypatch, root)
    with pytest.warns(UserWarning, match=r"cannot keep builds in .*no space") as caught:
        folder = publish(KEY, FILES)
    assert len(caught) == 1 and root not in folder.parents
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lookup(KEY) == folder == publish(KEY, FILES)
        assert lookup(build_key("before")) == kept
    assert list(root.iterdir()) == [kept]


def test_a_user_without_a_home_has_a_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPARSEC_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(_: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    _roots.cache_clear()
    with pytest.warns(UserWarning, match="cannot keep builds in a home folder .* SPARSEC_CACHE_DIR") as caught:
        folder = publish(KEY, FILES)
    assert len(caught) == 1 and lookup(KEY) == folder
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_a_mount_that_runs_nothing_gives_way_to_a_temporary_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = os.statvfs

    def statvfs(path: Path) -> os.statvfs_result:
        found = honest(path)
        return os.statvfs_result((*found[:8], found.f_flag | os.ST_NOEXEC, *found[9:]))

    monkeypatch.setattr(os, "statvfs", statvfs)
    with pytest.warns(UserWarning, match="cannot keep builds in .* noexec"):
        assert root not in publish(KEY, FILES).parents


def test_without_a_temporary_folder_there_is_one_clear_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    root.write_text("in the way")
    monkeypatch.setattr(tempfile, "mkdtemp", none)
    with pytest.warns(UserWarning, match="cannot keep"), pytest.raises(BuildError, match="expected a temporary folder"):
        publish(KEY, FILES)


@pytest.mark.parametrize("file", ["kernel.so", "kernel.cpp", "SHA256SUMS"])
def test_a_poisoned_library_is_built_again(root: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    def build(command: object, flags: object, source: str, folder: Path) -> None:
        (folder / "kernel.so").write_bytes(f"library of {source}".encode())

    monkeypatch.setattr(cpu, "_run_compiler", build)
    monkeypatch.setattr(cpu, "find_compiler", lambda: cpu.Compiler(("c++",), "c++"))
    for source in ("a", "b"):
        cpu.compile_shared(source)
    path = cpu.compile_shared("a")
    poisoned = path.parent / file
    poisoned.write_bytes((cpu.compile_shared("b").parent / file).read_bytes() if file != "kernel.cpp" else b"")
    assert cpu.compile_shared("a").read_bytes() == b"library of a"
    assert lookup(path.parent.name) == path.parent


def test_poisoned_triton_text_is_written_again(root: Path) -> None:
    triton = pytest.importorskip("sparsec.backends.triton.modules")
    module = triton.load_module("ANSWER = 42\n")
    text = Path(module.__file__)
    text.write_text("ANSWER = 43\n")
    del sys.modules[module.__name__]
    (text.parent / "__pycache__").mkdir()
    assert triton.load_module("ANSWER = 42\n").ANSWER == 42
    assert text.read_text() == "ANSWER = 42\n" and not (text.parent / "__pycache__").exists()


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "SHA256SUMS"])
def test_only_plain_names(root: Path, name: str) -> None:
    with pytest.raises(ValueError, match="plain file name"):
        publish(KEY, {name: b""})
    with pytest.raises(ValueError, match="hexadecimal"):
        lookup("../" + KEY)


def test_eight_writers_at_once(root: Path) -> None:
    program = (
        "from sparsec.runtime.build.cache import build_key, lookup, publish\n"
        "for n in range(40):\n"
        "    key = build_key(str(n))\n"
        "    folder = lookup(key) or publish(key, {'a': b'x' * 4096 * n, 'b': str(n).encode()})\n"
        "    assert lookup(key) == folder and (folder / 'a').stat().st_size == 4096 * n\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(8)]
    assert [writer.wait(timeout=60) for writer in writers] == [0] * 8
    assert sorted(path.name for path in root.iterdir()) == sorted(build_key(str(n)) for n in range(40))
