"""`attn.paged`, `attn.append_paged` and `attn.dead_pages`: what they take and refuse, and what torch sees of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.backends.paged import no_paged
from sparsec.diagnostics.model import CallError, SparsecError
from sparsec.runtime.module import SparseAttention

TEXT = "pattern p { heads 4 kv 2  causal  attend sink(4) | window(20) }"
SIZE = 16


@pytest.fixture(scope="module")
def attn() -> SparseAttention:
    return sparsec.compile(TEXT, head_dim=8, value_dim=12, target="torch", device="cpu")


def memory(pages: int = 10) -> tuple[Tensor, Tensor]:
    return torch.zeros(pages, SIZE, 2, 8), torch.zeros(pages, SIZE, 2, 12)


def call() -> dict[str, Any]:
    """Of two requests, of 100 tokens and of 3, with 2 queries each."""
    k_pages, v_pages = memory()
    torch.manual_seed(0)
    return {
        "q": torch.randn(4, 4, 8),
        "k_pages": k_pages.normal_(),
        "v_pages": v_pages.normal_(),
        "block_table": torch.tensor([[3, 99, -5, 99, 0, 7, 1], [9, 99, 99, 99, 99, 99, 99]], dtype=torch.int32),
        "cu_seqlens_q": torch.tensor([0, 2, 4], dtype=torch.int32),
        "seq_lens": torch.tensor([100, 3], dtype=torch.int32),
    }


def asked(attn: SparseAttention, change: Callable[[dict[str, Any]], object] = lambda _: None, **more: Any) -> Any:
    given = call()
    change(given)
    q, k_pages, v_pages = (given.pop(name) for name in ("q", "k_pages", "v_pages"))
    with torch.no_grad():
        return attn.paged(q, k_pages, v_pages, **given, **more)


def test_it_gives_out_and_lse_token_by_token(attn: SparseAttention) -> None:
    out, lse = asked(attn, return_lse=True, check_inputs=True)
    assert out.shape == (4, 4, 12) and lse.shape == (4, 4) and lse.dtype == torch.float32
    assert torch.equal(asked(attn), out) and not out.isnan().any()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("q", torch.zeros(4, 4, 9), r"expected q of shape \[tokens, 4, 8\], got \[4, 4, 9\]"),
        ("q", torch.zeros(4, 4, 8).double(), "expected q of dtype torch.float32, got torch.float64"),
        ("q", None, "expected q of type Tensor, got NoneType"),
        ("k_pages", torch.zeros(10, SIZE, 8), r"expected k_pages of shape \[pages, page_size, 2, 8\], got \[10, 16"),
        ("k_pages", torch.zeros(10, 8, 2, 8), r"expected v_pages of \[10, 8\] pages and rows like k_pages, got"),
        ("v_pages", torch.zeros(10, SIZE, 2, 8), r"expected v_pages of shape \[pages, page_size, 2, 12\]"),
        ("v_pages", torch.zeros(10, SIZE, 2, 12).half(), "expected v_pages of dtype torch.float32, got torch.float16"),
        ("block_table", torch.zeros(2, 7), r"expected block_table int32 \[requests, pages\] on cpu, got torch.float32"),
        ("block_table", torch.zeros(3, 7, dtype=torch.int32), r"got torch.int32 \[3, 7\] on cpu, with 2 requests"),
        ("seq_lens", torch.tensor([100, 3]), r"expected seq_lens int32 \[requests\] on cpu, got torch.int64 \[2\]"),
        ("seq_lens", torch.tensor([113, 3], dtype=torch.int32), "112 of a row of block_table, got 113 of request 0"),
        ("seq_lens", torch.tensor([100, 1], dtype=torch.int32), "from the 2 tokens of the call to the 112"),
        ("cu_seqlens_q", torch.tensor([0, 2], dtype=torch.int32), r"expected cu_seqlens_q int32 \[requests \+ 1\] on"),
        ("cu_seqlens_q", torch.tensor([0, 5, 4], dtype=torch.int32), "expected cu_seqlens_q to rise from 0 to 4"),
        ("cu_seqlens_q", torch.tensor([0, 2, 3], dtype=torch.int32), "expected cu_seqlens_q to rise from 0 to 4"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(attn: SparseAttention, name: str, value: object, message: str) -> None:
    with pytest.raises(CallError, match=message):
        asked(attn, lambda given: given.update({name: value}))


@pytest.mark.parametrize("entry", [-(2**31), -1, 10, 2**31 - 1])
def test_an_entry_that_is_no_page_is_refused_if_it_is_asked_for(attn: SparseAttention, entry: int) -> None:
    def plant(given: dict[str, Any]) -> None:
        given["block_table"][0, 5] = entry

    with pytest.raises(CallError, match=rf"expected a page from 0 to 9 in block_table\[0, 5\], got {entry}"):
        asked(attn, plant, check_inputs=True)
    nearest = asked(attn, lambda given: given["block_table"].__setitem__((0, 5), min(max(entry, 0), 9)))
    assert torch.equal(asked(attn, plant), nearest)


def test_what_it_cannot_do_is_said(attn: SparseAttention) -> None:
    with pytest.raises(CallError, match="expected no gradients over pages"):
        attn.paged(**{**call(), "q": torch.randn(4, 4, 8, requires_grad=True)})
    marked = sparsec.compile(
        "pattern p { heads 4 kv 2 causal input kept : tokens attend sink(4) | kept }",
        head_dim=8,
        value_dim=12,
        target="torch",
        device="cpu",
    )
    wrong = (
        ({}, "expected the inputs that the pattern declares, 'kept'; got none called 'kept'"),
        ({"kept": torch.zeros(3, 112, dtype=torch.bool)}, r"expected input 'kept' .* where B is 1 or 2"),
        ({"kept": torch.zeros(2, 112)}, r"expected input 'kept' .*; got float32 \[2, 112\]"),
    )
    for inputs, message in wrong:
        with pytest.raises(CallError, match=message):
            asked(marked, inputs=inputs)
    ahead = sparsec.compile(
        "pattern p { heads 4 kv 2 attend full }", head_dim=8, value_dim=12, target="torch", device="cpu"
    )
    for use in (asked, lambda module: module.dead_pages(10, 16)):
        with pytest.raises(SparsecError, match="later key"):
            use(ahead)
    with pytest.raises(CallError, match="expected a module with kernels for attention over pages, got one without"):
        no_paged()


def test_appending_writes_where_slots_say(attn: SparseAttention) -> None:
    k_pages, v_pages = memory(3)
    k, v = torch.randn(5, 2, 8), torch.randn(5, 2, 12)
    slots = torch.tensor([-1, 20, 48, 3, 2**31 - 1], dtype=torch.int32)  # the pages have 48
    attn.append_paged(k, v, k_pages, v_pages, slots)
    for pages, new in ((k_pages, k), (v_pages, v)):
        assert torch.equal(pages[1, 4], new[1]) and torch.equal(pages[0, 3], new[3])
        assert (pages != 0).flatten(2).any(dim=-1).sum() == 2
    before = k_pages.clone()
    attn.append_paged(k, v, k_pages, v_pages, torch.full((5,), -1))
    attn.append_paged(k[:0], v[:0], k_pages, v_pages, slots[:0])
    assert torch.equal(k_pages, before)


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        (torch.zeros(5), r"expected slot_mapping int32 or int64 \[5\] on cpu, got torch.float32 \[5\]"),
        (torch.arange(4), r"got torch.int64 \[4\]"),
        (torch.tensor([0, 1, 2, -1, 48]), "expected slots below 48 in slot_mapping, got 48"),
        (torch.tensor([7, -1, 2, -1, 7]), "expected each slot once in slot_mapping, got 7 twice"),
    ],
)
def test_slots_that_do_not_fit(attn: SparseAttention, slots: Tensor, message: str) -> None:
    with pytest.raises(CallError, match=message):
        attn.append_paged(torch.ones(5, 2, 8), torch.ones(5, 2, 12), *memory(3), slots, check_inputs=True)
    with pytest.raises(CallError, match="expected 5 tokens in v, got 4"):
        attn.append_paged(torch.ones(5, 2, 8), torch.ones(4, 2, 12), *memory(3), torch.arange(5))


def test_dead_pages(attn: SparseAttention) -> None:
    assert attn.dead_pages(1000, SIZE) == [range(1, 61)]
    assert attn.dead_pages(30, SIZE) == []
    for seq_len, size in ((0, 16), (10, 0), (2**29, 16)):
        with pytest.raises(CallError, match=r"expected (seq_len|page_size) between 1 and"):
            attn.dead_pages(seq_len, size)


def test_the_operators_pass_opcheck(attn: SparseAttention) -> None:
    given = call()
    held = (given[name] for name in ("q", "k_pages", "v_pages", "block_table", "cu_seqlens_q", "seq_lens"))
    torch.library.opcheck(torch.ops.sparsec.attend_paged, (*held, None, None, attn.kernel_digest, None))
    rows = torch.randn(5, 2, 8), torch.randn(5, 2, 12)
    torch.library.opcheck(torch.ops.sparsec.append_paged, (*rows, *memory(3), torch.tensor([3, -1, 40, 7, 99])))


def test_a_compiled_function_has_one_graph(attn: SparseAttention) -> None:
    given = call()
    rows = torch.randn(4, 2, 8), torch.randn(4, 2, 12)

    def step(k_pages: Tensor, v_pages: Tensor) -> Tensor:
        attn.append_paged(*rows, k_pages, v_pages, torch.tensor([16, 17, 144, 145]))
        return attn.paged(**{**given, "k_pages": k_pages, "v_pages": v_pages})

    expected, k_pages = step(given["k_pages"].clone(), given["v_pages"].clone()), given["k_pages"].clone()
    found = torch.compile(step, backend="aot_eager", fullgraph=True)(k_pages, given["v_pages"].clone())
    assert torch.equal(found, expected) and torch.equal(k_pages[1, 0], rows[0][0])


def test_a_request_without_tokens_has_no_rows(attn: SparseAttention) -> None:
    def emptied(given: dict[str, Any]) -> None:
        given["cu_seqlens_q"] = torch.tensor([0, 4, 4], dtype=torch.int32)
        given["seq_lens"] = torch.tensor([100, 0], dtype=torch.int32)

    assert not asked(attn, emptied).isnan().any()
    assert asked(attn, lambda given: given["k_pages"].fill_(math.nan)).isnan().all()
