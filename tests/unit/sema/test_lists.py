"""Lists: an element by its index, and the slopes that `alibi` takes, from the file or from a caller."""

from __future__ import annotations

import pytest

import sparsec
from sparsec.diagnostics.model import CallError, DiagnosticError
from sparsec.sema.model import At, Score, Window
from sparsec.sema.modifiers import Alibi, published_slopes


def windows(text: str, heads: int | None = None, **params: object) -> list[int]:
    found = []
    for term in sparsec.parse(text).pattern("p", **params).resolve(heads).terms:  # type: ignore[arg-type]  # each test's are right
        assert isinstance(term, At) and isinstance(term.term, Window)
        found.append(term.term.n)
    return found


def test_an_element_of_a_list_for_each_head() -> None:
    assert windows("pattern p(sizes = [8, 64, 16, 1]) { heads 4 attend window(sizes[h]) }") == [8, 64, 16, 1]
    assert windows("pattern p(sizes = [8, 8]) { heads 2 attend window(sizes[h]) }", sizes=[3, range(7, 9)]) == [3, 7]


def test_ranges_stand_for_their_integers() -> None:
    text = "pattern p(some = [9, 4..7, 2, 30..]) { let n = some[h] attend window(n) }"
    assert windows(text, 8) == [9, 4, 5, 6, 2, 30, 31, 32]


def test_an_empty_range_that_a_caller_gives_has_no_element() -> None:
    text = "pattern p(some = [1, 2..5]) { heads 2 attend window(some[h]) }"
    assert windows(text, some=[range(5, 2), 7, 8]) == [7, 8]


def test_elements_of_other_lists_and_of_calls() -> None:
    assert windows("pattern p { heads 3 attend window([2b, 4b][h // 2]) }") == [2, 2, 4]
    assert windows("pattern p(a = [1, 0], b = [5, 6]) { heads 2 attend window(b[a[h]]) }") == [6, 5]
    assert windows("param n = [3, 4] pattern p { heads 2 attend window(2 * n[1 - h] + 1) }") == [9, 7]
    text = "pattern q(n = 1) { attend window(n) } pattern p(all = [5, 7]) { heads 2 attend q(n = all[h]) }"
    assert windows(text) == [5, 7]


def test_an_index_that_a_caller_makes_wrong() -> None:
    pattern = sparsec.parse("pattern p(sizes = [8, 64]) { attend window(sizes[h]) }").pattern()
    assert len(pattern.resolve(2).terms) == 2
    with pytest.raises(DiagnosticError, match=r"E415.*index 2 is outside a list of 2 elements"):
        pattern.resolve(3)


def slopes(text: str, heads: int | None = None, **params: object) -> tuple[float, ...]:
    found = sparsec.parse(text).pattern("p", **params).resolve(heads)  # type: ignore[arg-type]  # each test's are right
    alibi = found.score.get(Alibi)
    return () if alibi is None else alibi.of_heads(found.heads)


def test_slopes_in_the_file() -> None:
    assert slopes("pattern p { alibi [0.5, 1/4, 0, 2] attend full }") == (0.5, 0.25, 0.0, 2.0)
    assert slopes("pattern p(m = [1, 3]) { heads 2 alibi m attend full }") == (1.0, 3.0)
    assert slopes("param n = 8 pattern p { let m = [1/n, 3/n] alibi m attend full }") == (0.125, 0.375)
    assert slopes("pattern p { heads 3 alibi attend full }") == published_slopes(3)
    assert slopes("pattern p { heads 3 attend full }") == ()


def test_a_list_of_slopes_gives_the_head_count() -> None:
    pattern = sparsec.parse("pattern p(m = [0.5, 1/4, 0.3]) { alibi m attend window(4 + h) }").pattern()
    assert (pattern.heads, pattern.kv_heads, pattern.resolve().heads) == (3, None, 3)
    with pytest.raises(CallError, match="expected heads=3, as its file says, got heads=4"):
        pattern.resolve(4)
    assert sparsec.parse("pattern p(m = [0.5]) { alibi m attend full }").pattern(m=[0.5, 1]).heads == 2


@pytest.mark.parametrize("given", [[0.25, 1, 0], "[0.25, 1, 0]", "[1/4, 1, 0.0]", (0.25, 1.0, 0)])
def test_slopes_that_a_caller_gives(given: object) -> None:
    text = "pattern p(m = [0.5, 0.5, 0.5]) { heads 3 alibi m attend full }"
    assert slopes(text, m=given) == (0.25, 1.0, 0.0)


def test_slopes_through_another_pattern() -> None:
    inner = "pattern q(m = [0.5, 1.0]) { alibi m attend window(4) }"
    outer = "pattern p(m = [0.25, 2.0]) { alibi m attend q(m = m) }"
    assert slopes(f"{inner} {outer}") == (0.25, 2.0)
    with pytest.raises(DiagnosticError, match="E313"):
        sparsec.parse(f"{inner} {outer.replace('q(m = m)', 'q')}")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("0.5", r"expected a list of decimals such as \[0.5, 0.25\], got '0.5'"),
        ([True], r"expected a list of decimals such as \[0.5, 0.25\], got \[True\]"),
        (0.5, "expected a list of decimals"),
        ([range(3)], "expected a list of decimals"),
    ],
)
def test_a_value_that_is_no_list_of_slopes(given: object, message: str) -> None:
    program = sparsec.parse("pattern p(m = [0.5]) { alibi m attend full }")
    with pytest.raises(CallError, match=message):
        program.pattern("p", m=given)  # type: ignore[arg-type]  # the mistake under test


@pytest.mark.parametrize("given", [[-0.5], [float("nan")], [float("inf")], [1e31]])
def test_slopes_that_no_kernel_takes(given: list[float]) -> None:
    pattern = sparsec.parse("pattern p(m = [0.5]) { alibi m attend full }")
    with pytest.raises(DiagnosticError, match=r"E413.*the slope of head 0 is"):
        pattern.pattern("p", m=given).resolve()


def test_the_score_keeps_what_the_file_says() -> None:
    listed = sparsec.parse("pattern p { alibi [0.5, 0.25] attend full }").pattern().resolve().score
    assert listed == Score(None, (Alibi((0.5, 0.25)),)) != Score(None, (Alibi(),))
