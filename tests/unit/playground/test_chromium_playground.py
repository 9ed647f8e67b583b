"""The playground in headless Chromium: what is typed is told and drawn."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from chromium import browser, free_port, wants_chromium

from sparsec.playground.server import application

pytestmark = [pytest.mark.kernels, wants_chromium]

TYPE = """
const text = document.getElementById("text");
text.value = %r;
text.dispatchEvent(new Event("input"));
"""
SAID = 'return document.getElementById("diagnostics").textContent;'


@contextmanager
def served(port: int) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(application(port), host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 20
        while not server.started and time.monotonic() < until:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join(20)


def test_what_is_typed_is_told_and_drawn(tmp_path: Path) -> None:
    with served(free_port()) as address, browser(tmp_path / "profile") as page:
        page.open(address)
        page.until('document.body.dataset.pictured === "s2 all 4096"')
        assert page.run(SAID) == "no problems"
        page.run(TYPE % "pattern p { causal attend windw(3) }")
        page.until('document.getElementById("diagnostics").classList.contains("errors")')
        assert "playground.sparse:1:27: error[E101]" in page.run(SAID)
        whole = "return [...document.querySelectorAll('#diagnostics .source')].map(line => line.textContent.trim());"
        assert page.run(whole)[1:] == ["1 | pattern p { causal attend windw(3) }", "|                           ^^^^^"]
        assert "line 5: window(8b)" in page.run('return document.getElementById("picture").srcdoc;'), "the last picture"
        page.run(TYPE % "pattern p { causal attend window(3) } pattern q { attend full }")
        page.until('document.body.dataset.pictured === "p all 4096"')
        choose = 'const f = document.getElementById("pattern"); f.value = "q"; f.dispatchEvent(new Event("change"));'
        page.run(choose)
        page.until('document.body.dataset.pictured === "q all 4096"')
        assert page.run(SAID) == "no problems"
