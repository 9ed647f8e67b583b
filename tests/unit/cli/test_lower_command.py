"""`sparsec lower`: every stage, each pass and target, what a head has of it, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from invoking import invoke

import sparsec
from sparsec.backends.base import PARTS
from sparsec.backends.cpu.cached import CpuCached
from sparsec.cli.lower import STAGES
from sparsec.pipeline import Compilation
from sparsec.sema.printer import sparse_text

S2 = Path(__file__).parents[3] / "examples" / "s2.sparse"
FILE = """
pattern local(near = 32) {
    heads 4 kv 2
    block 16
    causal
    softcap 20.0
    where h < 3 attend window(near) | stride(4b, phase = g)
    otherwise   attend full
}
pattern ahead { attend window(8, ahead = 8) }
pattern listed { input keys: columns  causal  attend keys }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "p.sparse"
    path.write_text(FILE)
    return path


def lower(file: Path, emit: str, *arguments: str, pattern: str = "local") -> str:
    result = invoke("lower", file, "--pattern", pattern, "--emit", emit, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


SAYS: Mapping[str, tuple[str, ...]] = {
    "terms": ("pattern local {", "softcap 20.0", "attend (window(32) | stride(4b, phase=1)) & causal  # lines 5, 7"),
    "bands": ("block 16", "heads 0..3", "    c0 = [0, 0, 1]", "j >= i - 31", "heads 3"),
    "tiles": ("tiles 64 x 16", "masked contiguous  # line 7: window(32) & line 5: causal", "live(i, j) ="),
    "plan": ("heads 4 kv 2, head dim 64, float32", "softcap 20.0", "    tiles 64 x 16", "heads 3, light"),
    "layout": ("KV groups 0", "region 0: 1 of every 4 blocks of 16 keys", "slot(j) =", "kept(j, stop) ="),
    "cpp": ("sparsec_forward",),
    "triton": ("import triton", "# line 8: full & line 5: causal"),
    "gluon": ("from triton.experimental import gluon", "# line 8: full & line 5: causal"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_says_what_it_made(file: Path, stage: str) -> None:
    text = lower(file, stage)
    assert [said for said in SAYS[stage] if said not in text] == []
    assert text.endswith("\n") and not text.endswith("\n\n")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("of", PARTS)
def test_a_stage_of_each_pass_is_the_same_each_time(file: Path, stage: str, of: str) -> None:
    assert lower(file, stage, "--of", of) == lower(file, stage, "--of", of)
    other = {"forward": "backward", "backward": "cached", "cached": "forward"}[of]
    differs = lower(file, stage, "--of", of) != lower(file, stage, "--of", other)
    assert differs == (
        stage in ("tiles", "plan", "cpp", "triton", "gluon") or (stage == "bands" and "backward" in (of, other))
    )


def test_terms_are_a_file_that_means_the_same(file: Path) -> None:
    text = lower(file, "terms", "--set", "near=20")
    assert "window(20)" in text and "near" not in text
    again = sparsec.parse(text).pattern().resolve()
    assert again.score == sparsec.load(file).pattern("local").resolve().score
    assert without_comments(sparse_text(again, "local")) == without_comments(text)


def without_comments(text: str) -> str:
    return "\n".join(line.partition("  #")[0] for line in text.splitlines())


@pytest.mark.parametrize(
    ("stage", "has", "lacks"),
    [
        ("terms", "head 2: (window(32) | stride(4b, phase=1)) & causal  # lines 5, 7\n", "full"),
        ("bands", "heads 0..3", "heads 3"),
        ("tiles", "heads 0..3", "heads 3"),
        ("plan", "heads 0..3", "heads 3"),
        ("layout", "KV groups 1", "KV groups 0"),
    ],
)
def test_what_a_head_has(file: Path, stage: str, has: str, lacks: str) -> None:
    text = lower(file, stage, "--head", "2")
    assert has in text and lacks not in text, text
    for of in ("backward", "cached"):
        only, every = lower(file, stage, "--of", of, "--head", "2"), lower(file, stage, "--of", of)
        assert lacks in every and lacks not in only and len(only) < len(every)


def test_the_target_gives_the_sizes_and_triton_assumes_a_gpu(file: Path) -> None:
    assert "tiles 64 x 16" in lower(file, "tiles")
    assert "tiles 128 x 16" in lower(file, "tiles", "--target", "cuda:80", "--dtype", "bf16")
    for stage in ("terms", "bands", "layout"):
        assert lower(file, stage) == lower(file, stage, "--target", "cuda:90")
    assert lower(file, "triton") == lower(file, "triton", "--target", "cuda:90")
    assert lower(file, "cpp") == lower(file, "cpp", "--target", "cpu:x86-64-v3")


@pytest.mark.kernels
def test_sources_are_those_that_are_built() -> None:
    pattern = sparsec.load(S2).pattern("s2")
    attn = sparsec.compile(pattern, heads=4, kv_heads=2, head_dim=32, target="cpu", device="cpu")
    options = ("--heads", "4", "--kv-heads", "2", "--head-dim", "32")
    assert lower(S2, "cpp", *options, pattern="s2") == attn.source
    compilation = Compilation(pattern.lowered(4, 2), 32, 32, "float32", "cpu")
    assert lower(S2, "cpp", "--of", "cached", *options, pattern="s2") == CpuCached.of(*compilation.cached).source


def test_a_dtype_left_out_is_one_that_the_target_takes(file: Path) -> None:
    assert "head dim 64, bfloat16" in lower(file, "plan", "--target", "gluon:90")
    assert "head dim 64, float16" in lower(file, "plan", "--target", "gluon:90", "--dtype", "half")
    assert "head dim 64, float32" in lower(file, "plan", "--target", "cuda:90")
    assert lower(file, "gluon") == lower(file, "gluon", "--dtype", "bf16")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--pattern", "local"), 2, "Missing option '--emit'"),
        (("--pattern", "local", "--emit", "ir"), 2, "'ir' is not one of 'terms', 'bands', 'tiles'"),
        (("--emit", "bands"), 2, "one of: local, ahead, listed; got no name; give --pattern NAME"),
        (("--pattern", "local", "--emit", "bands", "--head", "4"), 2, "expected a head from 0 to 3, got 4"),
        (("--pattern", "local", "--emit", "cpp", "--head", "1"), 2, "the source of cpp serves every head"),
        (
            ("--pattern", "local", "--emit", "cpp", "--target", "cuda:90"),
            2,
            "expected a target such as cpu with --emit",
        ),
        (("--pattern", "local", "--emit", "triton", "--target", "cpu"), 2, "expected a target such as cuda:90 with"),
        (("--pattern", "local", "--emit", "gluon", "--target", "cuda:90"), 2, "expected a target such as gluon:90"),
        (("--pattern", "local", "--emit", "gluon", "--dtype", "fp32"), 1, "take bfloat16 and float16, not float32"),
        (("--pattern", "local", "--emit", "plan", "--target", "cuda:9"), 2, "expected a target among cpu, "),
        (("--pattern", "local", "--emit", "plan", "--target", "interpreter"), 2, "expected a target among cpu, "),
        (("--pattern", "ahead", "--emit", "layout"), 1, "p.sparse:10:9: error[E502]: pattern `ahead` has no KV cache"),
        (("--pattern", "ahead", "--emit", "plan", "--of", "cached"), 1, "error[E502]"),
        (
            ("--pattern", "local", "--emit", "terms", "--heads", "5"),
            2,
            "expected heads=4, as its file says, got heads=5",
        ),
    ],
)
def test_refusals(file: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    result = invoke("lower", file, *arguments)
    assert (result.exit_code, result.stdout) == (code, "") and said in result.stderr, result.output
