"""Forward on a CUDA or ROCm GPU against dense float64 attention over the reference mask; skipped without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sparsec
from sparsec.reference import mask

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
S2 = "pattern p { block 64 causal attend sink(64) | window(4b) | stride(4b, phase = -g) }"
WINDOW = "pattern p { causal attend sink(10) | window(300) }"
RANDOM = "pattern p { block 64 causal attend window(2b) | random(3, seed = 5) }"
DUO = "pattern p { causal where g in [0] attend full otherwise attend sink(64) | window(256) }"
HEADS, KV_HEADS = 8, 2


def inputs(nq: int, nk: int, head_dim: int, dtype: torch.dtype, batch: int = 1) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(nq + nk)
    shapes = ((batch, HEADS, nq, head_dim), (batch, KV_HEADS, nk, head_dim), (batch, KV_HEADS, nk, head_dim))
    return tuple(torch.randn(shape, device="cuda").to(dtype) for shape in shapes)


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Dense attention computed in `dtype`."""
    share = q.shape[1] // k.shape[1]
    q, k, v = q.to(dtype), k.to(dtype).repeat_interleave(share, 1), v.to(dtype).repeat_interleave(share, 1)
    scores = (q @ k.mT * q.shape[3] ** -0.5).masked_fill(~seen, -torch.inf)
    lse = torch.logsumexp(scores.double(), -1)
    return torch.softmax(scores, -1).nan_to_num(0.0) @ v, lse


def check(source: str, tensors: tuple[torch.Tensor, ...], q_offset: int | None = None) -> None:
    q, k, v = tensors
    pattern = sparsec.parse(source).pattern()
    attn = sparsec.compile(
        pattern, heads=HEADS, kv_heads=KV_HEADS, head_dim=q.shape[3], dtype=q.dtype, device="cuda", target="triton"
    )
    out, lse = attn(q, k, v, q_offset=q_offset, return_lse=True)
    nq, nk = q.shape[2], k.shape[2]
    start = nk - nq if q_offset is None else q_offset
    rows = max(nk, start + nq)
    whole = pattern.mask(rows, rows, heads=HEADS, kv_heads=KV_HEADS)
    seen = torch.zeros(HEADS, nq, nk, dtype=torch.bool)
    first = max(0, -start)
    seen[:, first:] = whole[:, start + first : start + nq, :nk]
    seen = seen.cuda()
    want, want_lse = attend(q, k, v, seen, torch.float64)
    plain, _ = attend(q, k, v, seen, q.dtype)
    error, plain_error = ((t.double() - want).abs() for t in (out, plain))
    factor = 10.0 if q.dtype == torch.float32 else 2.0
    assert not out.isnan().any()
    assert error.max() <= max(factor * plain_error.max().item(), 1e-5)
    empty = ~seen.any(-1).expand(lse.shape)
    assert torch.equal(lse.isneginf(), empty) and not out[empty].any()
    torch.testing.assert_close(lse.double()[~empty], want_lse[~empty], rtol=1e-4, atol=1e-4)


@pytest.fixture(autouse=True)
def ieee_float32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("source", [S2, WINDOW, RANDOM, DUO], ids=["s2", "window", "random", "duo"])
def test_patterns(source: str, dtype: torch.dtype) -> None:
    for nq, nk in ((1, 1), (65, 65), (500, 1000), (1500, 1500), (1, 777)):
        check(source, inputs(nq, nk, 128, dtype, batch=2))


@pytest.mark.parametrize("head_dim", [16, 64, 72, 80, 96, 256])
def test_head_dims(head_dim: int) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        check(S2, inputs(700, 700, head_dim, dtype))


@pytest.mark.parametrize(("nq", "nk", "offset"), [(300, 100, None), (100, 300, 50), (100, 300, 1000), (64, 640, 0)])
def test_offsets(nq: int, nk: int, offset: int | None) -> None:
    for source in (S2, WINDOW):
        check(source, inputs(nq, nk, 64, torch.bfloat16), offset)


@pytest.mark.parametrize("layout", ["expanded", "transposed", "sliced", "odd", "columns"])
def test_strides(layout: str) -> None:
    q, k, v = inputs(600, 600, 64, torch.bfloat16, batch=2)
    match layout:
        case "expanded":
            k, v = k[:1].expand(2, -1, -1, -1), v[:, :1].expand(-1, KV_HEADS, -1, -1)
        case "transposed":
            q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v))
        case "sliced":
            q, k, v = (torch.cat((t, torch.full_like(t, torch.nan)), 3)[..., :64] for t in (q, k, v))
        case "odd":
            q, k, v = (torch.cat((t, torch.full_like(t[..., :1], torch.nan)), 3)[..., :64] for t in (q, k, v))
        case _:
            q, k, v = (t.mT.contiguous().mT for t in (q, k, v))
    check(S2, (q, k, v))


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.sparse")), ids=lambda path: path.stem)
def test_examples_run(file: Path) -> None:
    program = sparsec.load(file)
    for name in program.patterns:
        pattern = program.pattern(name)
        try:
            attn = sparsec.compile(pattern, heads=32, kv_heads=8, head_dim=64, dtype=torch.bfloat16, device="cuda")
        except sparsec.DiagnosticError as error:
            pytest.skip(str(error).splitlines()[0])
        except sparsec.SparsecError:
            attn = sparsec.compile(pattern, head_dim=64, dtype=torch.bfloat16, device="cuda")
        heads, kv_heads = attn.plan.heads, attn.plan.kv_heads
        q = torch.randn(1, heads, 1000, 64, device="cuda", dtype=torch.bfloat16)
        k, v = (torch.randn(1, kv_heads, 1000, 64, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        meaning = pattern.resolve(heads, kv_heads)
        bounds = (0, 1000) if attn.documents else None
        seen = mask(meaning, 1000, 1000, cu_seqlens=bounds).cuda()
        lengths = None if bounds is None else torch.tensor(bounds, dtype=torch.int32, device="cuda")
        with torch.no_grad():
            zero, lse = attn.cuda()(torch.zeros_like(q), k, v, return_lse=True, cu_seqlens=lengths)
        assert not zero.isnan().any()
        # Positions take from the score of q = 0 too; a sink of 0 counts as one more key.
        if not meaning.score.needs_positions:
            counted = lse.double().exp().round().long()[0] - int(meaning.score.learned)
            assert torch.equal(counted, seen.sum(-1))


def test_dead_keys_do_not_matter_and_runs_agree() -> None:
    pattern = sparsec.parse(S2).pattern()
    attn = sparsec.compile(
        pattern, heads=HEADS, kv_heads=KV_HEADS, head_dim=64, dtype=torch.bfloat16, device="cuda", target="triton"
    )
    q, k, v = inputs(100, 2000, 64, torch.bfloat16)
    seen = pattern.mask(100, 2000, heads=HEADS, kv_heads=KV_HEADS)
    dead = ~seen.reshape(KV_HEADS, -1, 2000).any(1).cuda()
    assert dead.any()
    first, second = attn(q, k, v), attn(q, k, v)
    poisoned = (t.masked_fill(dead[None, :, :, None], torch.nan) for t in (k, v))
    assert torch.equal(first, second) and torch.equal(first, attn(q, *poisoned))


def test_a_new_length_or_batch_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import triton

    attn = sparsec.compile(
        S2, heads=HEADS, kv_heads=KV_HEADS, head_dim=72, dtype=torch.bfloat16, device="cuda", target="triton"
    )
    attn(*inputs(130, 130, 72, torch.bfloat16))
    compiled: list[object] = []
    monkeypatch.setattr(triton.knobs.runtime, "jit_post_compile_hook", lambda **about: compiled.append(about["repr"]))
    for nq, nk, batch in ((1, 1, 1), (129, 511, 3), (16, 16, 16), (1024, 4097, 2)):
        attn(*inputs(nq, nk, 72, torch.bfloat16, batch))
    assert compiled == []


def test_long_rows_reach_beyond_32_bit_offsets() -> None:
    """k and v of 2**31 elements each: 8 GiB in all."""
    if torch.cuda.get_device_properties(0).total_memory < 24 << 30:
        pytest.skip("needs 24 GiB")
    n = (1 << 24) + 64
    attn = sparsec.compile(
        "pattern p { causal attend sink(64) | window(128) }",
        heads=2,
        kv_heads=1,
        head_dim=128,
        dtype=torch.bfloat16,
        device="cuda",
        target="triton",
    )
    q = torch.randn(1, 2, 64, 128, device="cuda", dtype=torch.bfloat16)
    k = torch.zeros(1, 1, n, 128, device="cuda", dtype=torch.bfloat16)
    v = torch.zeros_like(k)
    v[..., -1, :] = 1.0
    out = attn(q, k, v)
    torch.testing.assert_close(out[0, 0, -1].float(), torch.full((128,), 1 / 192, device="cuda"), rtol=0.02, atol=0.0)
