"""Lists of keys for all queries in Gluon's kernels, on the model: copied rows, rings that tiles and lists share."""

from __future__ import annotations

import pytest
import torch
from gluon_calls import call_agrees
from gluon_memory import Hazard
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gluon import kernel_of
from torch import Tensor

import sparsec
from sparsec.backends.gluon import listed as listed_rows
from sparsec.backends.gluon.emit import LISTED_KEYS
from sparsec.backends.triton.launches import KernelEntry
from sparsec.backends.triton.programs import of_listed
from sparsec.sema.model import Documents, ResolvedPattern
from sparsec.testing.cases import Case
from sparsec.testing.strategies import document_bounds, shapes

HEADS, KV_HEADS, N = 4, 2, 330
"""Keys that take several steps of a list, and a last one that is not full."""
TEXTS = {
    "alone": "causal attend listed",
    "a window beside": "causal attend listed | window(40) | sink(3)",
    "keys ahead": "attend listed | window(30, ahead = 12)",
    "a window of them": "causal attend listed & window(100) | window(9)",
    "all but": "causal attend window(70) - listed",
    "two lists": "input others : columns causal attend listed | others & window(150) | window(2b)",
    "draws": "causal attend listed | random(2, seed = 3)",
    "some heads": "causal where g in [0] attend listed | window(20) otherwise attend window(90)",
    "alibi": "causal softcap 3.0 alibi attend listed | window(40)",
    "weights": "input lean : weights causal key_bias lean learned_sink attend listed | window(40)",
}


def pattern_of(terms: str, documents: str = "") -> ResolvedPattern:
    text = f"pattern p {{ block 16 heads {HEADS} kv {KV_HEADS} input listed : columns {documents} {terms} }}"
    return sparsec.parse(text).pattern("p").resolve(None, None)


def lists(batch: int, heads: int, keys: int, count: int, seed: int, past: int = 9) -> Tensor:
    """Distinct numbers -past .. keys + past - 1 in no order: some are no key's."""
    made = torch.Generator().manual_seed(seed)
    order = torch.rand((batch, heads, keys + 2 * past), generator=made).argsort(-1)
    return (order[..., :count] - past).to(torch.int32)


def given_to(pattern: ResolvedPattern, case: Case, listed: Tensor) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
    found = case.given(pattern)
    if "others" in found:
        found["others"] = lists(1, HEADS, 20, 12, 1)
    return found | {"listed": listed}


@pytest.mark.parametrize("name", TEXTS)
def test_long_lists(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One list for all, one for a KV group, or one for a head."""
    heads = (1, KV_HEADS, HEADS)[sorted(TEXTS).index(name) % 3]
    pattern, case = pattern_of(TEXTS[name]), Case("forward", 9, N, N - 9, 2, 4)
    listed = lists(1 if heads == KV_HEADS else 2, heads, N, 210, heads)
    kernel = kernel_of(pattern, monkeypatch, dims=(24, 16), seed=heads)
    call_agrees(kernel, pattern, case, given_to(pattern, case, listed))


@pytest.mark.parametrize(
    ("name", "kind"), [("alone", "documents"), ("alibi", "documents restart"), ("two lists", "documents restart")]
)
def test_documents(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions of a list are those of the packed sequence, or count from the start of each document; the kernel that
    copies has as many programs as a folder says of it."""
    pattern, copies, launch = pattern_of(TEXTS[name], kind), list[tuple[str, int]](), listed_rows.launch

    def counted(entry: KernelEntry, programs: int, *given: object) -> None:
        copies.append((entry.function.function.__name__, programs))
        launch(entry, programs, *given)

    monkeypatch.setattr(listed_rows, "launch", counted)
    kernel, case = kernel_of(pattern, monkeypatch), Case("forward", N, N, 0, seed=3, bounds=(0, 9, 9, 200, N))
    call_agrees(kernel, pattern, case, given_to(pattern, case, lists(1, KV_HEADS, N, 180, 7)))
    of = {"batch": 1, "columns": 180, "nq": N, "documents": 4}
    said = eval(of_listed(kernel.plan, LISTED_KEYS).programs.replace("/", "//"), of)
    assert copies[0] == ("copy_listed_0", said)


def test_lists_of_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern, case = pattern_of(TEXTS["alone"]), Case("forward", 3, 70, 67)
    kernel = kernel_of(pattern, monkeypatch)
    none = torch.tensor([-1, 70, 2**31 - 1, -(2**31)], dtype=torch.int32).expand(1, HEADS, -1)
    for listed in (none, none[..., :0]):
        call_agrees(kernel, pattern, case, {"listed": listed})
    call_agrees(kernel, pattern, Case("forward", 3, 0, -3), {"listed": none})


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_drawn_calls(data: st.DataObject) -> None:
    """Any lengths, documents, lists, and order of what runs at the same time."""
    kind = data.draw(st.sampled_from(["", "documents", "documents restart"]))
    pattern = pattern_of(TEXTS[data.draw(st.sampled_from(sorted(TEXTS)))], kind)
    shape, bounds = data.draw(shapes(max_queries=70, max_keys=220)), ()
    n_q, n_k, start = shape.n_q, shape.n_k, shape.q_offset
    if pattern.documents is not Documents.NONE:
        n_q, start = n_k, 0
        bounds = data.draw(document_bounds(n_k))
    case = Case("forward", n_q, n_k, start, seed=data.draw(st.integers(0, 9)), bounds=bounds)
    heads = data.draw(st.sampled_from([1, KV_HEADS, HEADS]))
    listed = lists(1, heads, n_k, data.draw(st.integers(0, n_k)), case.seed)
    with pytest.MonkeyPatch.context() as patch:
        kernel = kernel_of(pattern, patch, seed=data.draw(st.integers(0, 99)))
        call_agrees(kernel, pattern, case, given_to(pattern, case, listed))


MISTAKES = {
    "keys that tiles show counted twice": ("live = allowed & known[None, :]", "live = (j < i + 1) & known[None, :]"),
    "what is past the end of a list counted": ("mask=spot < spots_to_0, other=-1", "mask=spot < spots_to_0, other=0"),
    "the list's first key again in each step": ("n = spots_from_0 + (at - steps) * 64", "n = spots_from_0"),
    "copied from another part of the list": (
        "copy(listed_values_0, [batch, of_list, n, 0]",
        "copy(listed_values_0, [batch, of_list, n + 1, 0]",
    ),
    "rows of another key": ("rows = gl.where(known, j, 0)", "rows = gl.where(known, j + 1, 1)"),
    "rows of another KV group": (f"group = slot * {KV_HEADS} // slots", "group = slot * 0"),
    "phases that begin anew with the list": (
        "        used = ((at // STAGES) & 1) ^ 1\n        n = ",
        "        used = (((at - steps) // STAGES) & 1) ^ 1\n        n = ",
    ),
    "positions stored before their buffer is free": (
        "        mbarrier.wait(k_free.index(buffer), used)\n        entries.index(buffer).store(j)\n",
        "        entries.index(buffer).store(j)\n        mbarrier.wait(k_free.index(buffer), used)\n",
    ),
    "a step of a list too few": ("+ 63) // 64\n", "+ 0) // 64\n"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_planted_mistakes_in_lists_are_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = MISTAKES[mistake]

    def edit(text: str) -> str:
        assert right in text
        return text.replace(right, wrong)

    pattern, case = pattern_of("causal attend window(9) | listed"), Case("forward", 9, 470, 461)
    listed = lists(1, KV_HEADS, 470, 430, 2)
    listed = torch.where((listed >= 0) & (listed < 470), listed, 0)
    with pytest.raises((Hazard, AssertionError, IndexError)):
        call_agrees(kernel_of(pattern, monkeypatch, edit=edit), pattern, case, {"listed": listed})
