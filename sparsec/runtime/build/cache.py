"""Key -> folder of built files on disk, private to the user, kept between processes.

Invariant: a folder that `lookup` or `publish` returns belongs to this user, who alone may write to it, and holds every
file that was published under its key whole, as its digest says, and no other; a file is never seen half written.
Whatever does not match is treated as absent and built again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from sparsec.diagnostics.model import SparsecError

_SUMS = "SHA256SUMS"
_A_DAY = 86_400.0  # seconds
_KEY = re.compile(r"[0-9a-f]{64}\Z")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")


class BuildError(SparsecError):
    """Nothing can be built here: no compiler, one that failed (the message says how), or no room for files."""


def build_key(*parts: str) -> str:
    """The key of a build: a digest of everything that its result depends on."""
    return hashlib.sha256("\0".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


def lookup(key: str) -> Path | None:
    """The folder published under `key`, its files just checked against their digests; None if there is none."""
    found = (_valid(root / _checked(key)) for root in _roots(_configured_root()))
    return next((folder for folder in found if folder is not None), None)


def publish(key: str, files: Mapping[str, bytes]) -> Path:
    """Stores `files` (plain names) under `key` in one step; returns their folder. Several writers at once are safe.

    Where the cache's folder has no room they go to a temporary one, with one warning. Raises BuildError.
    """
    sums = _sums(key, {_named(name): data for name, data in files.items()})
    roots = _roots(_configured_root())
    while True:
        try:
            return _published(roots[-1], _checked(key), {**files, _SUMS: sums})
        except OSError as error:
            reason = error.strerror or str(error)
            if len(roots) > 1 or roots[0] != _configured_root():
                raise BuildError(f"expected room for a build in {roots[-1]}, got an error: {reason}") from error
            roots.append(_temporary(str(roots[0]), reason))


def discard(key: str) -> None:
    """Takes an entry away, if there is one, so that another can be published under its key."""
    for root in _roots(_configured_root()):
        if (root / _checked(key)).exists():
            _remove(root / key)


def cache_folder() -> Path | None:
    """Where builds are kept from process to process; None for a user without a home folder who names no other."""
    return _configured_root()


def entry_sizes(folder: Path) -> dict[str, int]:
    """The bytes of each entry of a cache's folder, by its key; what is no entry does not count."""
    entries = folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ()
    return {
        entry.name: sum(file.lstat().st_size for file in entry.iterdir())
        for entry in entries
        if _KEY.match(entry.name) and _ours(entry, stat.S_ISDIR)
    }


def clear_cache(folder: Path) -> None:
    """Takes every entry of a cache's folder away, and what processes that died left there more than a day ago."""
    for key in entry_sizes(folder):
        _remove(folder / key)
    for left in (*folder.glob(".new-*"), *folder.glob(".old-*")):
        if _ours(left, stat.S_ISDIR) and left.lstat().st_mtime < time.time() - _A_DAY:
            shutil.rmtree(left, ignore_errors=True)


def _published(root: Path, key: str, files: Mapping[str, bytes]) -> Path:
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    try:
        for name, data in files.items():
            _write(fresh / name, data)
        _sync_folder(fresh)
        return _placed(fresh, root / key)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # there is none once it stands in its place


def _placed(fresh: Path, target: Path) -> Path:
    """Renames `fresh` to `target`, unless a valid entry stands there by now."""
    while True:
        try:
            fresh.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            if (theirs := _valid(target)) is not None:
                return theirs
            _remove(target)
        else:
            _sync_folder(target.parent)
            return target


def _configured_root() -> Path | None:
    """None for a user without a home folder who names no other."""
    chosen = os.environ.get("SPARSEC_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        if chosen:
            return Path(chosen).absolute()
        return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "sparsec"
    except (RuntimeError, OSError):  # no HOME and no entry for the user; a relative path in a folder that is gone
        return None


@cache
def _roots(wanted: Path | None) -> list[Path]:
    """`wanted` made private, or a fresh temporary folder, with one warning, if it cannot be trusted or used.

    A later failure to write appends a temporary folder, for the rest of the process.
    """
    if wanted is None:
        return [_temporary("a home folder", "the user has none; SPARSEC_CACHE_DIR names another folder")]
    try:
        wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = wanted.lstat()
        if stat.S_ISLNK(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise PermissionError(errno.EPERM, "it has to be a folder that nobody else owns or may write to")
        wanted.chmod(0o700)
        if os.statvfs(wanted).f_flag & getattr(os, "ST_NOEXEC", 0):
            raise PermissionError(errno.EPERM, "its mount lets nothing be run: noexec")
        with tempfile.TemporaryFile(dir=wanted):
            return [wanted]
    except OSError as error:
        return [_temporary(str(wanted), error.strerror or str(error))]


def _temporary(wanted: str, reason: str) -> Path:
    """Raises BuildError where there is no temporary folder."""
    warnings.warn(f"sparsec cannot keep builds in {wanted} ({reason}); they last for this process", stacklevel=5)
    try:
        return Path(tempfile.mkdtemp(prefix="sparsec-"))
    except OSError as error:
        raise BuildError(f"expected a temporary folder for what is built, got an error: {error}") from error


def _valid(folder: Path) -> Path | None:
    """`folder` if it and its files are ours, and its list is the one of its name and of these files."""
    try:
        paths = sorted(folder.iterdir()) if _ours(folder, stat.S_ISDIR) else []
        if not all(_ours(path, stat.S_ISREG) for path in paths):
            return None
        files = {path.name: path.read_bytes() for path in paths}
        if files.pop(_SUMS, None) != _sums(folder.name, files):
            return None
    except OSError:
        return None
    return folder


def _sums(key: str, files: Mapping[str, bytes]) -> bytes:
    """The list of an entry: its key, and the digest of each of its files."""
    lines = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    return "".join((f"# {key}\n", *lines)).encode()


def _ours(path: Path, kind: Callable[[int], bool]) -> bool:
    found = path.lstat()
    return kind(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


def _remove(path: Path) -> None:
    """Moves a bad entry aside, then deletes it, so that nobody meets it half deleted."""
    aside = Path(tempfile.mkdtemp(prefix=".old-", dir=path.parent))
    with suppress(FileNotFoundError):  # another writer was first
        path.rename(aside / "entry")
    shutil.rmtree(aside, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _checked(key: str) -> str:
    if not _KEY.match(key):
        raise ValueError(f"expected a key of 64 hexadecimal digits, got {key!r}")
    return key


def _named(name: str) -> str:
    if not _FILE.match(name) or name == _SUMS:
        raise ValueError(f"expected a plain file name, got {name!r}")
    return name
