"""A page in headless Chromium: what its document holds once its scripts have run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
wants_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def document_of(address: str, profile: Path, *flags: str) -> str:
    """The document as text, after up to ten seconds of the page's own time."""
    assert CHROMIUM is not None
    own = (f"--user-data-dir={profile}", "--virtual-time-budget=10000")
    command = [CHROMIUM, *_FLAGS, *own, *flags, "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
