"""Headless Chromium, driven through ChromeDriver's HTTP interface (the W3C's WebDriver)."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DRIVER = shutil.which("chromedriver")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
wants_chromium = pytest.mark.skipif(
    DRIVER is None or CHROMIUM is None, reason="there is no Chromium with its ChromeDriver on this machine"
)
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


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Browser:
    """One session; `address` is where the driver has it."""

    address: str

    def open(self, url: str) -> None:
        _call("POST", f"{self.address}/url", {"url": url})

    def run(self, script: str) -> Any:
        """What the body of a function gives; a promise is waited for."""
        return _call("POST", f"{self.address}/execute/sync", {"script": script, "args": []})

    def screen(self, width: int, scheme: str) -> None:
        """A window so wide, for a reader who prefers `scheme`: light or dark."""
        scheme_of = [{"name": "prefers-color-scheme", "value": scheme}]
        size = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": False}
        for command, params in (
            ("Emulation.setEmulatedMedia", {"features": scheme_of}),
            ("Emulation.setDeviceMetricsOverride", size),
        ):
            _call("POST", f"{self.address}/goog/cdp/execute", {"cmd": command, "params": params})

    def until(self, expression: str) -> None:
        """Waits until the expression is true in the page."""
        end = time.monotonic() + 20
        while not self.run(f"return Boolean({expression});"):
            assert time.monotonic() < end, expression
            time.sleep(0.03)


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A session whose files lie in `profile`; it ends with the block."""
    assert DRIVER is not None and CHROMIUM is not None
    port = free_port()
    driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    root, address = f"http://127.0.0.1:{port}", None
    try:
        end = time.monotonic() + 20
        while True:
            try:
                _call("GET", f"{root}/status")
                break
            except OSError:
                assert time.monotonic() < end, "the driver does not answer"
                time.sleep(0.05)
        chrome = {"binary": CHROMIUM, "args": [*_FLAGS, f"--user-data-dir={profile}"]}
        session = _call("POST", f"{root}/session", {"capabilities": {"alwaysMatch": {"goog:chromeOptions": chrome}}})
        address = f"{root}/session/{session['sessionId']}"
        yield Browser(address)
    finally:
        if address is not None:
            _call("DELETE", address)
        driver.terminate()
        driver.wait(20)


def _call(method: str, address: str, data: object = None) -> Any:
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())["value"]
