"""The tests of inputs that a plan has -> what the CPU kernels have for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from sparsec.ir.bands.band import Asks, InputTest

LOOKUPS_A_TEST = 2


@dataclass(frozen=True, slots=True)
class TestView:
    """`type`, a struct of templates/cpu/kernels/inputs/`header`.h."""

    header: str
    type: str


def view_of(test: InputTest) -> TestView:
    match test.asks:
        case Asks.MARKED:
            return TestView("counted", "Marked")
        case Asks.COLUMN:
            return TestView("counted", f"Counted<OfColumn<{test.width}>>")
        case Asks.SLASH:
            return TestView("counted", f"Counted<OfDistance<{test.height}>>")
        case Asks.SLASH_TILE:
            return TestView("counted", f"Counted<OfTile<{test.height}>>")
        case Asks.ROW:
            return TestView("lists", f"Lists<{test.width}>")
        case Asks.CELL:
            return TestView("cells", f"Cells<{test.height}, {test.width}>")
        case Asks.LABEL:
            return TestView("labels", "Labels")
        case Asks.ANCESTOR:
            return TestView("tree", "Tree")
        case Asks.KEY_BELOW:
            return TestView("lengths", "KeyBelow")
        case Asks.QUERY_BELOW:
            return TestView("lengths", "QueryBelow")
        case Asks.NEAR:
            return TestView("lengths", "Near")
        case Asks.KEPT:
            return TestView("kept", "KeptList")
        case Asks.KEPT_MARK:
            return TestView("kept", f"KeptMark<{test.ordinal}>")
        case _:
            assert_never(test.asks)


def headers_of(tests: tuple[InputTest, ...]) -> tuple[str, ...]:
    """The headers of these tests, without directories."""
    return tuple(dict.fromkeys(view_of(test).header for test in tests)) or ("none",)
