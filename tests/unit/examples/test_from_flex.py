"""`examples/from_flex.py`: each mask has the pattern that a reader expects."""

from __future__ import annotations

import pytest
from from_flex import PORTS, ported

ATTENDS = {
    "sink and window": "causal attend sink(4) | window(128)",
    "documents": "documents causal attend full",
    "prefix by sequence": "input length : length attend sink(length) | causal",
    "shards by head": "heads 4 block 32 causal attend stride(4b, phase=-h) | chunk(32, back=1)",
}


@pytest.mark.parametrize("name", ATTENDS)
def test_port(name: str) -> None:
    found = ported(PORTS[name])
    assert " ".join(found.text.split()) == f"pattern found {{ {ATTENDS[name]} }}"


def test_what_no_terms_say() -> None:
    assert not ported(PORTS["neighbours in an image"])
