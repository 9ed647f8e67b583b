"""Modules that leave their process: what they carry, what another process makes of it, and what it refuses."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import pickle
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from travelling import TEXT, tensors

import sparsec
from sparsec.pipeline import Lowered
from sparsec.runtime.compile import Request
from sparsec.runtime.request import kernel_name, request_of

pytestmark = pytest.mark.kernels

PROGRAM = Path(__file__).with_name("travelling.py")


def compiled(**changed: Any) -> sparsec.SparseAttention:
    return sparsec.compile(TEXT, **{"head_dim": 16, "target": "torch", **changed})


def test_pickles_exports_and_workers_agree_in_another_process(tmp_path: Path) -> None:
    """By pickle, torch.save, torch.export.save, AOTInductor and a DataLoader's worker; the reader builds nothing."""
    environment = {**os.environ, "SPARSEC_CACHE_DIR": str(tmp_path / "cache")}
    for role in ("write", "read"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(PROGRAM), role, str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout == "agree\n"


def test_a_pickle_holds_neither_code_nor_text() -> None:
    attn = compiled()
    attn.layout, attn.plan  # noqa: B018  # what is kept once it is made stays behind too
    assert set(attn.__getstate__()) == set(compiled().__getstate__())
    data = pickle.dumps(attn)
    assert len(data) < 4000
    for text in (b"window", b"sparsec.program", b"sparsec.plan", b"sparsec.sema", b"functools"):
        assert text not in data
    back = pickle.loads(data)
    assert (back.layout, back.plan, back.source) == (attn.layout, attn.plan, attn.source)
    assert str(back.explain(100)) == str(attn.explain(100))


def test_a_state_is_loaded_where_nothing_but_data_is() -> None:
    """A checkpoint may come from anybody: `weights_only` needs the class itself and nothing that runs code."""
    import io

    file = io.BytesIO()
    torch.save(compiled(), file)
    file.seek(0)
    with torch.serialization.safe_globals([sparsec.SparseAttention]):
        back = torch.load(file, weights_only=True)
    assert torch.equal(back(*tensors()), compiled()(*tensors()))


def test_copies_share_their_kernels_and_keep_the_files_diagnostics() -> None:
    attn = compiled()
    twin = copy.deepcopy(attn)
    assert twin.plan is attn.plan and twin.sink is not attn.sink
    open_ahead = sparsec.compile("pattern p { heads 2  attend window(8, ahead = 8) }", head_dim=16, target="torch")
    for module in (open_ahead, copy.deepcopy(open_ahead)):
        with pytest.raises(sparsec.DiagnosticError, match="later key"):
            module.new_cache()
    with pytest.raises(sparsec.CallError, match=r"expected a pattern that a KV cache serves, .* later key"):
        pickle.loads(pickle.dumps(open_ahead)).new_cache()


def test_names_are_of_the_pattern_not_of_its_file() -> None:
    spaced = TEXT.replace("  ", "    ")
    assert compiled()._kernel == sparsec.compile(spaced, head_dim=16, target="torch")._kernel
    others = [compiled(head_dim=32), compiled(dtype=torch.bfloat16), compiled(target="cpu")]
    assert len({compiled()._kernel, *(other._kernel for other in others)}) == 4


def test_a_name_gives_its_request_back() -> None:
    pattern = sparsec.parse(TEXT).pattern().resolve()
    for target, dtype in (("cpu", torch.float16), ("torch", torch.float64), ("cuda:90", torch.bfloat16)):
        request = Request(Lowered(pattern), 64, 48, dtype)
        assert request_of(kernel_name(request, target)) == (request, target)


def packed(text: bytes, digest: str | None = None) -> str:
    return (digest or hashlib.sha256(text).hexdigest()) + base64.b64encode(zlib.compress(text)).decode()


def told(**changed: Any) -> str:
    """A name whose data is another one's, changed."""
    name = compiled()._kernel
    data = json.loads(zlib.decompress(base64.b64decode(name[64:])))
    return packed(json.dumps({**data, **changed}).encode())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "digest"),
        ("a kernel", ""),
        ("0" * 64, ""),
        ("é" * 200, ""),
        (packed(b"{}", "0" * 64), "digest"),
        (packed(b"[]"), "expected its values by name"),
        (packed(b"[" * 100_000), ""),
        (packed(b" " * (1 << 26)), "digest"),
        (packed(b'{"format": 1e999}'), "inf"),
        (told(format=4, sparsec="9.0"), "format 3 is read by sparsec .*, and this is 4 of sparsec '9.0'"),
        (told(target="tpu"), "expected a target"),
        (told(head_dim=10**9), "expected head_dim from 1 to 1024"),
        (told(value_dim=0), "expected value_dim from 1 to 1024"),
        (told(dtype="int8"), "expected dtype"),
        (told(pattern=None), "expected a pattern"),
    ],
    ids=str,
)
def test_what_is_no_name_is_one_clear_error(name: str, message: str) -> None:
    with pytest.raises(sparsec.CallError, match=f"(?s)expected the name of a kernel of sparsec, got .*{message}"):
        torch.ops.sparsec.forward(*tensors(), None, None, None, None, name, 0, None)
