"""The tensors that a call gives for inputs: a mistake is one clear error, of shapes always, of numbers when asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import sparsec
from sparsec.diagnostics.model import CallError
from sparsec.reference import attention
from sparsec.runtime.inputs.checks import flat_inputs
from sparsec.sema.inputs import settled
from sparsec.sema.model import InputDecl, InputKind, InputUnit
from sparsec.sema.shapes import Sizes

BLOCK = 16
SIZES = Sizes(2, 4, 2, 5, 40, 40, 35)
CACHED = Sizes(2, 4, 2, 5, 5, None, None)
LIKE = torch.zeros(1)
I32, I64 = torch.int32, torch.int64


def decl(kind: str, unit: str = "tokens", tile: tuple[int, int] | None = None) -> InputDecl:
    return settled((InputDecl("x", InputKind(kind), 1, 1, InputUnit(unit), tile),), BLOCK)[0]


def ints(*shape: int, dtype: torch.dtype = I32) -> torch.Tensor:
    """Distinct numbers along the last axis."""
    return torch.arange(shape[-1]).expand(shape).to(dtype)


def marks(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.bool)


def check(declared: InputDecl, given: Any, sizes: Sizes = SIZES, *, values: bool = True) -> list[torch.Tensor]:
    return flat_inputs((declared,), {"x": given}, sizes, LIKE, block=BLOCK if values else None)


RIGHT: list[tuple[InputDecl, Any]] = [
    (decl("length"), ints(2)),
    (decl("length"), ints(1, dtype=I64)),
    (decl("length"), torch.tensor([[0, 2**29, 7, 1], [3, 3, 3, 3]])),
    (decl("tokens"), marks(2, 40)),
    (decl("tokens"), marks(1, 4, 40)),
    (decl("columns"), ints(2, 2, 9)),
    (decl("columns"), ints(1, 1, 0)),
    (decl("columns"), torch.tensor([[[-1, 3, -1, -5, 40, 41, 40, 2**31 - 1, 2**31 - 1]]], dtype=I32)),
    (decl("columns", "blocks"), torch.tensor([[[2, 1, 3, 3, -9, -9]]])),
    (decl("slashes"), torch.tensor([[[39, 0, 40, 40, -1, -1]]])),
    (decl("slashes", "blocks"), torch.tensor([[[2, 3, 3]]])),
    (decl("slashes", "tiles"), torch.tensor([[[47, 48, 48]]])),
    (decl("rows"), ints(1, 4, 5, 3).transpose(-1, -2).contiguous().transpose(-1, -2)),
    (decl("rows", "blocks"), ints(2, 1, 5, 40)[..., :2]),
    (decl("blocks"), marks(2, 4, 1, 3)),
    (decl("blocks"), marks(1, 1, 9, 9)),
    (decl("blocks", tile=(3, 7)), marks(1, 1, 3, 6)),
    (decl("blocks"), (torch.tensor([[[2]]]), torch.tensor([[[[2, 1, 2]]]]))),
    (decl("blocks"), (torch.tensor([[[3]]]), torch.tensor([[[[-1, -1, 3, 3]]]]))),
    (decl("labels"), (ints(2, 4, 5), ints(1, 2, 40, dtype=I64))),
    (decl("tree"), torch.tensor([[-1, 0, 1, -1, 3], [-1, -1, 1, 2, 0]])),
    (decl("tree"), ints(1, 0)),
    (decl("weights"), torch.full((2, 1, 40), -torch.inf)),
]


@pytest.mark.parametrize(("declared", "given"), RIGHT, ids=[f"{n} {d.kind.value}" for n, (d, _) in enumerate(RIGHT)])
def test_what_is_right(declared: InputDecl, given: Any) -> None:
    found = check(declared, given)
    pair = given if isinstance(given, tuple) else (given,)
    assert len(found) == len(pair)
    assert all(mine is theirs for mine, theirs in zip(found, pair, strict=True))


WRONG_SHAPES: list[tuple[InputDecl, Any, str]] = [
    (
        decl("columns"),
        ints(3, 1, 4),
        "expected input 'x' (columns) as int32 or int64 [B, X, c], where B is 1 or 2, X is 1 or 2 or 4; "
        "got int32 [3, 1, 4]",
    ),
    (decl("columns"), ints(2, 3, 4), "X is 1 or 2 or 4; got int32 [2, 3, 4]"),
    (decl("columns"), ints(2, 4), "as int32 or int64 [B, X, c], where"),
    (decl("columns"), ints(2, 1, 4).float(), "got float32 [2, 1, 4]"),
    (decl("columns"), ints(2, 1, 4).to(torch.int16), "got int16 [2, 1, 4]"),
    (decl("columns"), (ints(2, 1, 4), ints(2, 1, 4)), "got int32 [2, 1, 4] and int32 [2, 1, 4]"),
    (decl("columns", "blocks"), marks(2, 1, 4), "'x' (columns(blocks)) as int32 or int64"),
    (decl("length"), ints(2, 2, 2), "as int32 or int64 [B], or int32 or int64 [B, X], where"),
    (decl("length"), torch.tensor(3), "got int64 []"),
    (decl("tokens"), marks(2, 5), "as bool [B, Nk], where B is 1 or 2, Nk is 40; got bool [2, 5]"),
    (decl("tokens"), marks(2, 40).float(), "got float32 [2, 40]"),
    (decl("slashes", "tiles"), ints(2, 3, 1), "'x' (slashes(tiles)) as"),
    (decl("rows"), ints(2, 1, 40, 3), "[B, X, Nq, c], where B is 1 or 2, X is 1 or 2 or 4, Nq is 5; got"),
    (decl("rows", "blocks"), ints(2, 5, 3), "(rows(blocks)) as"),
    (decl("blocks"), marks(1, 1, 0, 3), "Qb is at least 1, Kb is at least 3; got bool [1, 1, 0, 3]"),
    (decl("blocks", tile=(3, 7)), marks(1, 1, 2, 6), "(blocks(3, 7)) as bool [B, X, Qb, Kb], where"),
    (decl("blocks", tile=(3, 7)), marks(1, 1, 3, 5), "Kb is at least 6; got bool [1, 1, 3, 5]"),
    (decl("blocks"), ints(1, 1, 1, 3), "as bool [B, X, Qb, Kb]"),
    (
        decl("blocks"),
        ints(1, 1, 1),
        "as bool [B, X, Qb, Kb], or a pair (int32 or int64 [B, X, Qb]; int32 or int64 [B, X, Qb, c]), where",
    ),
    (decl("blocks"), (ints(1, 1, 1), ints(1, 2, 1, 3)), "got int32 [1, 1, 1] and int32 [1, 2, 1, 3]"),
    (decl("labels"), ints(2, 1, 5), "as a pair (int32 or int64 [B, X, Nq]; int32 or int64 [B, X, Nk]), where"),
    (decl("labels"), (ints(2, 1, 5), ints(2, 1, 5)), "Nq is 5, Nk is 40; got"),
    (decl("tree"), ints(2, 41), "n is at most 40; got int32 [2, 41]"),
    (decl("weights"), torch.zeros(2, 1, 40, dtype=torch.float64), "as float32 [B, X, Nk]"),
    (decl("weights"), torch.zeros(2, 40), "got float32 [2, 40]"),
    (decl("columns"), [1, 2], "as a tensor or a pair of tensors, got int and int"),
    (decl("columns"), None, "as a tensor or a pair of tensors, got NoneType"),
    (decl("columns"), (), "as a tensor or a pair of tensors, got nothing"),
    (decl("labels"), (ints(2, 1, 5),) * 3, "as a tensor or a pair of tensors, got Tensor and Tensor and Tensor"),
    (decl("columns"), torch.zeros(1, 1, 3, dtype=I32, device="meta"), "'x' on cpu like q, got meta"),
    (decl("tokens"), marks(1, 40).to_sparse(), "'x' as a dense tensor, got one of torch.sparse_coo"),
]


@pytest.mark.parametrize(
    ("declared", "given", "message"), WRONG_SHAPES, ids=[f"{n} {w[0].kind.value}" for n, w in enumerate(WRONG_SHAPES)]
)
def test_wrong_shapes(declared: InputDecl, given: Any, message: str) -> None:
    with pytest.raises(CallError) as raised:
        check(declared, given, values=False)
    assert message in str(raised.value)
    assert str(raised.value).startswith("expected input 'x'")


CELL = torch.tensor([[[[0, 2, 1, 2]]]])
WRONG_NUMBERS: list[tuple[InputDecl, Any, str]] = [
    (decl("length"), torch.tensor([3, -1]), "expected lengths of input 'x' from 0 to 536870912, got -1 at [1]"),
    (decl("length"), torch.tensor([[3], [2**40]]), "from 0 to 536870912, got 1099511627776 at [1, 0]"),
    (
        decl("columns"),
        torch.tensor([[[3, 1, 4]], [[7, 0, 7]]]),
        "expected the entries of a list of input 'x' to be distinct, got 7 at [1, 0, 0] and at [1, 0, 2]",
    ),
    (decl("columns"), torch.tensor([[[39, -1, -1, 39]]], dtype=I32), "got 39 at [0, 0, 0] and at [0, 0, 3]"),
    (decl("columns", "blocks"), torch.tensor([[[2, 2]]]), "got 2 at [0, 0, 0] and at [0, 0, 1]"),
    (decl("slashes"), torch.tensor([[[39, 39]]]), "got 39 at"),
    (decl("slashes", "blocks"), torch.tensor([[[2, 0, 2]]]), "got 2 at [0, 0, 0] and at [0, 0, 2]"),
    (decl("slashes", "tiles"), torch.tensor([[[47, 47]]]), "got 47 at"),
    (decl("rows"), torch.tensor([[[[1, 2]] * 4 + [[2, 2]]]]), "got 2 at [0, 0, 4, 0] and at [0, 0, 4, 1]"),
    (decl("blocks"), (torch.tensor([[[4]]]), CELL), "distinct, got 2 at [0, 0, 0, 1] and at [0, 0, 0, 3]"),
    (decl("blocks"), (torch.tensor([[[5]]]), CELL), "expected counts of input 'x' from 0 to 4, got 5 at [0, 0, 0]"),
    (decl("blocks"), (torch.tensor([[[-1]]]), CELL), "from 0 to 4, got -1 at [0, 0, 0]"),
    (
        decl("tree"),
        torch.tensor([[-1, 0, 1], [-1, 2, 1]]),
        "expected the parent of token 1 of input 'x' from -1 to 0, got 2 at [1, 1]",
    ),
    (decl("tree"), torch.tensor([[-1, 1]]), "the parent of token 1 of input 'x' from -1 to 0, got 1 at [0, 1]"),
    (decl("tree"), torch.tensor([[0, 0]]), "the parent of token 0 of input 'x' to be -1, got 0 at [0, 0]"),
    (decl("tree"), torch.tensor([[-1, -2]]), "from -1 to 0, got -2 at [0, 1]"),
    (
        decl("weights"),
        torch.zeros(1, 1, 40).index_fill(2, torch.tensor([7]), torch.nan),
        "expected the weights of input 'x' below infinity, got nan at [0, 0, 7]",
    ),
    (decl("weights"), torch.full((1, 1, 40), torch.inf), "got inf at [0, 0, 0]"),
]


@pytest.mark.parametrize(
    ("declared", "given", "message"), WRONG_NUMBERS, ids=[f"{n} {w[0].kind.value}" for n, w in enumerate(WRONG_NUMBERS)]
)
def test_wrong_numbers_when_asked(declared: InputDecl, given: Any, message: str) -> None:
    check(declared, given, values=False)
    with pytest.raises(CallError) as raised:
        check(declared, given)
    assert message in str(raised.value)


def test_with_a_cache_what_speaks_of_keys_is_given_for_the_new_ones() -> None:
    check(decl("tokens"), marks(2, 5), CACHED)
    check(decl("labels"), (ints(2, 1, 5), ints(2, 1, 5)), CACHED)
    check(decl("rows"), ints(2, 1, 5, 3), CACHED)
    check(decl("blocks"), marks(2, 1, 1, 700), CACHED)
    check(decl("tree"), torch.tensor([[-1, 0, 1]]), CACHED)
    with pytest.raises(CallError, match="Nk is 5; got bool"):
        check(decl("tokens"), marks(2, 40), CACHED)
    with pytest.raises(CallError, match=r"got 900 at"):
        check(decl("columns"), torch.tensor([[[900, 900]]]), CACHED)


TWO = (InputDecl("picks", InputKind.COLUMNS, 1, 1), InputDecl("marks", InputKind.TOKENS, 2, 1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pick": ints(1, 1, 2), "marks": marks(1, 40)}, "got one called 'pick': did you mean 'picks'?"),
        (
            {"picks": ints(1, 1, 2)},
            "expected the inputs that the pattern declares, 'picks', 'marks'; got none called 'marks'",
        ),
        ({"picks": ints(1, 1, 2), "marks": marks(1, 40), "zz": LIKE}, "got one called 'zz'"),
        (None, "got none called 'picks', 'marks'"),
        ({}, "got none called 'picks', 'marks'"),
        ({1: LIKE}, "got one called '1'"),
        ([LIKE], "expected inputs as a mapping of names to tensors, got list"),
    ],
    ids=str,
)
def test_wrong_names(given: Any, message: str) -> None:
    with pytest.raises(CallError) as raised:
        flat_inputs(TWO, given, SIZES, LIKE)
    assert message in str(raised.value)


def test_the_order_is_that_of_the_declarations() -> None:
    chosen, marked = ints(1, 1, 2), marks(1, 40)
    found = flat_inputs(TWO, {"marks": marked, "picks": chosen}, SIZES, LIKE)
    assert found[0] is chosen and found[1] is marked


def test_numbers_are_not_read_unasked() -> None:
    """On meta there are none."""
    given = {"picks": torch.zeros(1, 1, 3, dtype=I32, device="meta"), "marks": marks(1, 40).to("meta")}
    assert len(flat_inputs(TWO, given, SIZES, LIKE.to("meta"))) == 2


@pytest.mark.kernels
@pytest.mark.parametrize("target", ["reference", "torch"])
def test_a_call_checks_and_attends(target: str) -> None:
    text = "pattern p { heads 4 kv 2  input picks : rows  input n : length  attend picks & causal | sink(n) }"
    pattern = sparsec.parse(text).pattern()
    attn = sparsec.compile(pattern, head_dim=8, target=target)
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 9, 8), torch.randn(2, 2, 9, 8)
    given = {"picks": torch.randint(-1, 9, (2, 2, 5, 3)), "n": torch.tensor([0, 2])}
    given["picks"][..., 1:] = -1
    out, lse = attn(q, k, v, inputs=given, check_inputs=True, return_lse=True)
    expected = attention(q, k, v, pattern.mask(5, 9, inputs=given))
    torch.testing.assert_close(out.double(), expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse.double(), expected[1], atol=1e-5, rtol=1e-5)
    given["picks"][1, 0, 3] = 4
    attn(q, k, v, inputs=given)
    with pytest.raises(CallError, match=r"got 4 at \[1, 0, 3, 0\] and at \[1, 0, 3, 1\]"):
        attn(q, k, v, inputs=given, check_inputs=True)
    with pytest.raises(CallError, match="did you mean 'picks'"):
        attn(q, k, v, inputs={"pick": given["picks"], "n": given["n"]})


@pytest.mark.kernels
def test_parents_that_are_none_make_roots() -> None:
    """Of a tree with any numbers in it, cycles among them, the kernels' meaning is the reference's."""
    pattern = sparsec.parse("pattern p { heads 1  input drafts : tree  causal  attend drafts }").pattern()
    q = torch.randn(2, 1, 6, 8)
    given = {"drafts": torch.tensor([[1, 0, 5, 2, 4, -7], [0, 2**40, 1, 3, -(2**63), 2]])}
    attn = sparsec.compile(pattern, head_dim=8, target="torch")
    expected = attention(q, q, q, pattern.mask(6, 6, inputs=given))[0]
    torch.testing.assert_close(attn(q, q, q, inputs=given).double(), expected, atol=1e-5, rtol=1e-5)
