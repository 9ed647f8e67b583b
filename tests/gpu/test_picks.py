"""Sweeps to picks, and the table of picks as the sweeps kept beside the benchmarks' results give it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from picks import main, picks_of, text_of

from sparsec.plan import target
from sparsec.plan.picks import PICKS, Family, Kind, Pick
from sparsec.plan.target import DECODE_ROWS

RESULTS = Path(__file__).parents[1] / "bench" / "results"
KEY = (Family.HOPPER, Kind.FORWARD, 64, "bfloat16")


def row(ms: float | None, *, rule: bool = False, **other: Any) -> dict[str, Any]:
    tiles = {"query_tile": 128, "key_tile": 64, "warps": 8, "stages": 3, "maxnreg": None}
    said = {"error": None, "right": True, "spill_bytes": 0, "registers": 168}
    return {"kind": "forward", "head_dim": 64, "dtype": "bfloat16", **tiles, "rule": rule, "ms": ms, **said, **other}


def sweep(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"card": "a card", "target": "cuda:90", "rows": list(rows)}


def test_the_fastest_row_is_picked() -> None:
    rows = row(1.0, rule=True), row(0.9, stages=2), row(0.8, key_tile=128, warps=4, maxnreg=128), row(0.85, stages=4)
    assert picks_of(sweep(*rows)) == {KEY: Pick(128, 128, 4, 3, 128)}


@pytest.mark.parametrize(("ms", "picked"), [(0.96, True), (0.97, True), (0.98, False), (1.0, False), (1.1, False)])
def test_the_rule_stands_unless_beaten_by_three_in_a_hundred(ms: float, picked: bool) -> None:
    assert (KEY in picks_of(sweep(row(1.0, rule=True), row(ms, stages=2)))) == picked
    assert (KEY in picks_of(sweep(row(ms, stages=2), row(1.0, rule=True)))) == picked


def test_of_equally_fast_rows_the_first_is_picked() -> None:
    rows = row(1.0, rule=True), row(0.8, stages=2), row(0.8, stages=4)
    assert picks_of(sweep(*rows))[KEY].stages == 2


def test_what_spills_has_to_be_faster_by_two_in_a_hundred() -> None:
    for ms, stages in ((0.79, 2), (0.78, 4)):
        rows = row(1.0, rule=True), row(0.8, stages=2), row(ms, stages=4, spill_bytes=8)
        assert picks_of(sweep(*rows))[KEY].stages == stages


def test_rows_that_failed_are_not_picked() -> None:
    failed = (
        row(0.1, stages=1, right=False),
        row(0.1, stages=1, right=None),
        row(0.1, stages=1, error="out of resources"),
        row(None, stages=1),
    )
    for one in failed:
        assert picks_of(sweep(row(1.0, rule=True), one)) == {}
        assert picks_of(sweep(row(1.0, rule=True), one, row(0.9, stages=2)))[KEY].stages == 2
    assert picks_of(sweep(*failed)) == {}


def test_where_the_rule_failed_the_fastest_other_is_picked() -> None:
    rows = row(0.5, rule=True, right=False), row(3.0, stages=2), row(2.0, stages=1)
    assert picks_of(sweep(*rows)) == {KEY: Pick(128, 64, 8, 1)}


def test_kinds_head_dimensions_and_dtypes_are_picked_apart() -> None:
    others = [{"kind": kind} for kind in ("grad_queries", "grad_keys", "chunk", "decode")]
    others += [{"head_dim": 256}, {"dtype": "float16"}]
    rows = [each for n, other in enumerate(others) for each in (row(1.0, rule=True, **other), row(0.5, stages=n))]
    for n, other in enumerate(others):
        rows[2 * n + 1] |= other
    found = picks_of(sweep(*rows, row(1.0, rule=True)))
    assert [(key[1].value, *key[2:]) for key in found] == [
        ("forward", 64, "float16"),
        ("forward", 256, "bfloat16"),
        ("grad_queries", 64, "bfloat16"),
        ("grad_keys", 64, "bfloat16"),
        ("chunk", 64, "bfloat16"),
        ("decode", 64, "bfloat16"),
    ]
    assert [pick.stages for pick in found.values()] == [5, 4, 0, 1, 2, 3]


def test_an_unknown_kind_or_target_is_refused() -> None:
    with pytest.raises(ValueError, match="sideways"):
        picks_of(sweep(row(1.0, kind="sideways")))
    with pytest.raises(ValueError, match="expected a target"):
        picks_of({**sweep(), "target": "a card"})


def test_the_command_prints_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = sweep(row(1.0, maxnreg=128), row(1.0, kind="decode", query_tile=16))
    (tmp_path / "gpu_sweep.json").write_text(json.dumps(rows))
    monkeypatch.setattr(sys, "argv", ["picks.py", str(tmp_path / "gpu_sweep.json")])
    main()
    assert capsys.readouterr().out == (
        '    (Family.HOPPER, Kind.FORWARD, 64, "bfloat16"): Pick(128, 64, 8, 3, 128),\n'
        '    (Family.HOPPER, Kind.DECODE, 64, "bfloat16"): Pick(16, 64, 8, 3),\n'
    )
    picks = picks_of(rows)
    assert eval(f"{{{text_of(picks)}}}", vars(target)) == picks


def test_the_table_of_picks_is_what_the_sweeps_give() -> None:
    expected: dict[Any, Pick] = {}
    for path in sorted(RESULTS.glob("*sweep*.json")):
        expected |= picks_of(json.loads(path.read_text()))
    assert expected == PICKS


def test_picks_are_for_head_dimensions_and_dtypes_that_are_looked_up() -> None:
    for (of, kind, head_dim, dtype), pick in PICKS.items():
        assert head_dim in (64, 128, 256) and dtype in ("bfloat16", "float16")
        assert kind is not Kind.DECODE or pick.query_tile == DECODE_ROWS
        assert pick.maxnreg is None or of is not Family.CDNA
