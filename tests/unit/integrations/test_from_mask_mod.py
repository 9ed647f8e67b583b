"""A callable mask gives the pattern back that it was made of, or a reason; what is given is the callable's own set."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.diagnostics.model import CallError
from sparsec.integrations.flex import FoundPattern, from_mask_mod, mask_mod

N = 192
SAME = [
    "causal  attend full",
    "attend full",
    "causal  attend none",
    "causal  attend window(40)",
    "attend window(40, ahead=7)",
    "causal  attend sink(5) | window(30)",
    "causal  attend window(20) | stride(8, phase=3)",
    "causal  attend window(32) | dilated(16)",
    "causal  attend chunk(24)",
    "attend chunk(24, back=1)",
    "attend sink(40) | causal",
    "attend window(10, ahead=9) | global(6)",
    "causal  attend columns(7..90)",
    "causal  attend ~window(20)",
    "attend window(33, ahead=32) & dilated(4)",
    "causal  attend window(33) & chunk(48)",
    "attend rows(10..40) | window(5, ahead=4)",
    "attend ~causal",
    "block 16  attend window(2b, ahead=1b)",
    "block 16  causal  attend stride(4b, phase=1) | chunk(16, back=1)",
]


def same(found: FoundPattern, f: Callable[..., Tensor], n: int, heads: int = 1) -> bool:
    """Whether the pattern has the pairs of f, by the reference."""
    assert found.pattern is not None
    at = torch.arange(n)
    own = f(torch.tensor(0), torch.arange(heads)[:, None, None], at[None, :, None], at[None, None, :])
    return torch.equal(found.pattern.mask(n, n, heads=heads), own.expand(heads, n, n))


@pytest.mark.parametrize("body", SAME)
def test_what_a_pattern_is_made_of_is_found(body: str) -> None:
    f = mask_mod(sparsec.parse(f"pattern p {{ {body} }}").pattern(), device="cpu")
    found = from_mask_mod(f, N)
    assert " ".join(found.text.split()) == f"pattern found {{ {' '.join(body.split())} }}"
    assert same(found, f, 3 * N) and found.farthest == 4 * N - 1 and found.pairs > N * N
    assert "equal on all 36,864 pairs" in found.why and str(found).startswith(f"# {found.why}\npattern found {{")


@pytest.mark.parametrize(
    "body",
    [
        "causal & (sink(3) | window(20) | stride(16, phase=5)) & rows(50..120)",
        "~(window(20) | sink(3))",
        "causal & window(50) - stride(5)",
        "dilated(2) & stride(3, phase=1) & causal",
        "columns(20..40) | rows(50..) | window(3, ahead=1)",
        "causal & window(3b) | sink(1b) & causal",
    ],
)
def test_other_words_for_the_same_set(body: str) -> None:
    f = mask_mod(sparsec.parse(f"pattern p {{ block 16  attend {body} }}").pattern(), device="cpu")
    assert same(from_mask_mod(f, N), f, 2 * N)


@pytest.mark.parametrize(
    ("body", "attends"),
    [
        ("heads 6  attend window(16 + 4 * h)", "attend window(16 + 4 * h)"),
        ("heads 6  attend window(9) | stride(5, phase = 3 - h)", "attend window(9) | stride(5, phase=3 - h)"),
        ("heads 6 kv 3  attend stride(3, phase = g)", "attend stride(3, phase=g)"),
        (
            "heads 6  where h in [0, 2] attend full  otherwise attend sink(3) | window(20)",
            "where h in [0, 2] attend full where h in [1, 3..6] attend sink(3) | window(20)",
        ),
        (
            "heads 6  where h < 3 attend window(7)  otherwise attend window(11 + h * h)",
            "where h == 3 attend window(20)",
        ),
    ],
)
def test_heads(body: str, attends: str) -> None:
    declared = sparsec.parse(f"pattern p {{ causal  {body} }}").pattern()
    f = mask_mod(declared, device="cpu")
    found = from_mask_mod(f, N, heads=6, kv_heads=declared.kv_heads)
    assert attends in " ".join(found.text.split()) and same(found, f, N, 6)


def test_documents() -> None:
    bounds = (0, 30, 31, 90, 150, N)
    pattern = sparsec.parse("pattern p { documents  causal  attend window(20) | stride(7, phase = 2) }").pattern()
    found = from_mask_mod(mask_mod(pattern, cu_seqlens=bounds, device="cpu"), N)
    assert found.cu_seqlens == bounds and "documents\n" in found.text and found.farthest == N - 1
    assert "nothing beyond them was compared" in found.why
    restart = sparsec.parse(
        "pattern p { documents restart  causal  attend window(3) | stride(7, phase = 2) }"
    ).pattern()
    found = from_mask_mod(mask_mod(restart, cu_seqlens=bounds, device="cpu"), N)
    assert found.cu_seqlens is not None and "documents restart\n" in found.text and "stride(7, phase=2)" in found.text


@pytest.mark.parametrize(
    ("sizes", "body"),
    [((20, 44), "causal attend full"), ((20, 44), "attend full"), ((9, 30, 25), "causal attend window(5)")],
)
def test_few_documents_are_no_ranges(sizes: tuple[int, ...], body: str) -> None:
    """Absolute ranges of rows and columns say two documents too, with more to read."""
    document = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    term = mask_mod(sparsec.parse(f"pattern p {{ {body} }}").pattern(), device="cpu")
    found = from_mask_mod(lambda b, h, q, kv: term(b, h, q, kv) & (document[q] == document[kv]), 64)
    assert " ".join(found.text.split()) == f"pattern found {{ documents {body} }}"
    assert found.cu_seqlens == (0, *torch.tensor(sizes).cumsum(0).tolist())


def test_chunks_are_no_documents() -> None:
    found = from_mask_mod(lambda b, h, q, kv: q // 24 == kv // 24, 96)
    assert "attend chunk(24)" in found.text and found.cu_seqlens is None


def test_lengths_that_differ_between_sequences() -> None:
    lengths = torch.tensor([30, 0, 77])
    found = from_mask_mod(lambda b, h, q, kv: (kv < lengths[b]) | (q >= kv), N, batch=3, heads=2)
    assert "attend sink(length) | causal" in found.text and torch.equal(found.inputs["length"], lengths)
    assert found.pattern is not None
    live = found.pattern.mask(N, N, heads=2, inputs=found.inputs)
    assert live.shape == (3, 2, N, N) and bool(live[0, 0, 0, 29]) and not live[0, 0, 0, 30] and not live[1, 1, 0, 1]
    other = from_mask_mod(lambda b, h, q, kv: (q >= kv) & ((b == 1) | (q - kv < 9)), N, batch=2)
    assert not other and "differs between sequences" in other.why


def test_nothing_is_found() -> None:
    noise = torch.rand((N, N), generator=torch.Generator().manual_seed(0)) < 0.5
    found = from_mask_mod(lambda b, h, q, kv: noise[q, kv], N)
    assert not found and found.text == "" and found.why.startswith("no pattern: unions of terms explain ")
    place = re.search(r"query (\d+), key (\d+), the first", found.why)
    assert place is not None and bool(noise[int(place[1]), int(place[2])])


def test_what_shows_beyond_the_positions_is_not_taken_for_found() -> None:
    f = mask_mod(sparsec.parse("pattern p { causal  attend window(300) }").pattern(), device="cpu")
    found = from_mask_mod(f, N)
    assert not found and found.why.endswith("give a larger n") and "query 3" in found.why
    assert from_mask_mod(f, N, farthest=N).text == "pattern found {\n    causal\n    attend full\n}\n"
    assert "window(300)" in from_mask_mod(f, 512).text
    table = torch.arange(N) % 3 == 0
    found = from_mask_mod(lambda b, h, q, kv: table[kv] & (q >= kv), N)
    assert "attend stride(3)" in found.text and "the function raises" in found.why and found.farthest == N - 1


@pytest.mark.parametrize(("more", "rows"), [(0, 0), (1, 1), (3, 3), (30, 30), (48, 48), (49, 48), (900, 48)])
def test_each_row_beyond_the_positions_is_compared_once(more: int, rows: int) -> None:
    found = from_mask_mod(lambda b, h, q, kv: q >= kv, 16, farthest=16 + more, heads=2)
    assert found.pairs == 2 * (16 * 16 + rows * (16 + more)) and found.farthest == 15 + more
    assert (f"and in {rows} row{'s' * (rows > 1)} beyond, up to {16 + more}" in found.why) == (rows > 0)


def test_a_cpu_is_one_by_any_name() -> None:
    found = [from_mask_mod(lambda b, h, q, kv: q >= kv, 16, device=each) for each in ("cpu", torch.device("cpu"))]
    assert [each.farthest for each in found] == [63, 63]


@pytest.mark.parametrize(
    ("f", "more", "message"),
    [
        (lambda b, h, q, kv: q - kv, {}, "gives one boolean for a pair, got torch.int64"),
        (lambda b, h, q, kv: q >= kv if q > 3 else kv < 3, {}, "expected a mask_mod .b, h, q_idx, kv_idx."),
        (lambda q, kv: q >= kv, {}, "expected a mask_mod"),
        (lambda b, h, q, kv: q >= kv, {"n": 8}, "expected n between 16 and 4096, got 8"),
        (lambda b, h, q, kv: q >= kv, {"heads": 4, "kv_heads": 3}, "expected kv_heads to divide heads=4"),
        (lambda b, h, q, kv: q >= kv, {"name": "9 lives"}, "expected a name"),
        (lambda b, h, q, kv: q >= kv, {"name": "p { attend full } pattern q"}, "expected a name"),
        (lambda b, h, q, kv: q >= kv, {"name": "pattern"}, "expected a name"),
        (lambda b, h, q, kv: q >= kv, {"name": "p # "}, "expected a name"),
    ],
)
def test_refusals(f: Callable[..., Tensor], more: dict[str, object], message: str) -> None:
    with pytest.raises(CallError, match=message):
        from_mask_mod(f, **{"n": N, **more})
