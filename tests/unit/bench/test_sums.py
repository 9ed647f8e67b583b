"""Times of kinds of layers, added up over a model's layers; and `sparsec bench --model`, which tells both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import sparsec
from sparsec.bench.sums import model_sums, sums_table
from sparsec.cli.main import commands

TEXT = """
pattern near(w = 16) { heads 2 kv 1  causal  attend window(w) }
pattern picked { heads 2 kv 1  input kept : tokens  causal  attend window(8) | kept }
model m { layers 5  where l % 2 == 0 use near  otherwise use near(w = 8) }
model lists { layers 3  where l == 1 use picked  otherwise use near }
"""
SMALL = ("--head-dim", "8", "--seq-len", "64", "--repeats", "1", "--device", "cpu")


@dataclass(frozen=True)
class Taken:
    length: int
    calls: Mapping[str, Mapping[str, float]]


def test_a_baseline_has_a_sum_where_it_ran_for_all() -> None:
    first = Taken(64, {"forward": {"sparsec": 1.0, "sdpa": 2.0, "flex": 3.0}}), Taken(32, {"forward": {"sparsec": 0.5}})
    other = Taken(64, {"forward": {"sparsec": 10.0, "sdpa": 5.0}}), Taken(32, {"forward": {"sparsec": 0.25}})
    long, short = model_sums([(3, first), (2, other)])
    assert (long.length, long.call, long.seconds, long.partial) == (
        64,
        "forward",
        {"sparsec": 23.0, "sdpa": 16.0},
        ("flex",),
    )
    assert (short.length, short.seconds, short.partial) == (32, {"sparsec": 2.0}, ())
    assert long.as_dict()["speed_up"] == {"sparsec": 1.0, "sdpa": 16 / 23}
    lines = sums_table([long, short]).splitlines()
    assert lines[0].split() == ["tokens", "call", "ms", "sdpa", "ms", "vs", "sdpa"]
    assert lines[2].split() == ["64", "forward", "2.3e+04", "1.6e+04", "0.70x"]
    assert lines[3].split() == ["32", "forward", "2e+03", "-", "-"]
    assert lines[-1] == "without a sum, since it ran for some kinds of layers alone: flex"


@pytest.fixture
def layered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with models; what is compiled is plain PyTorch."""
    honest = sparsec.compile
    monkeypatch.setattr(sparsec, "compile", lambda of, **more: honest(of, **{**more, "target": "torch"}), raising=False)
    path = tmp_path / "m.sparse"
    path.write_text(TEXT)
    return path


def bench(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(commands, ["bench", *map(str, arguments)], prog_name="sparsec")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ((), {"forward"}),
        (("--backward",), {"forward + backward", "backward"}),
        (("--decode",), {"1 new"}),
        (("--prefill-chunk", "8"), {"8 new"}),
    ],
)
def test_all_layers_take_what_their_kinds_take(layered: Path, options: tuple[str, ...], calls: set[str]) -> None:
    result = bench(layered, "--model", "m", *SMALL, "--against", "sdpa", *options, "--format", "json")
    assert result.exit_code == 0, result.output
    found: Any = json.loads(result.stdout)
    assert (found["model"], found["heads"], found["kv_heads"]) == ("m", 2, 1)
    assert [(each["pattern"], each["layers"]) for each in found["kinds"]] == [("near", [0, 2, 4]), ("near", [1, 3])]
    assert {each["call"] for each in found["all_layers"]} == calls
    name = {"forward + backward": "both_ms", "backward": "backward_ms"}
    for each in found["all_layers"]:
        (first,), (other,) = (kind["results"] for kind in found["kinds"])
        of = name.get(each["call"], "ms")
        ours = [times[of]["sparsec"] if isinstance(times[of], dict) else times[of] for times in (first, other)]
        assert each["ms"]["sparsec"] == pytest.approx(3 * ours[0] + 2 * ours[1])
        assert set(each["ms"]) == {"sparsec", "sdpa"}


def test_kinds_with_inputs_stand_beside_others(layered: Path) -> None:
    options = ("--against", "sdpa,masked", "--inputs", "kept=random:density=0.5")
    result = bench(layered, "--model", "lists", *SMALL, *options)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "near, layers 0, 2: 2 layers" in lines and "picked, layer 1: 1 layer" in lines
    assert lines[lines.index("all 3 layers") + 3].split()[:2] == ["64", "forward"]
    assert "inputs kept=random" in lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layers", "2"), "expected --layers with --model, got a pattern"),
        (("--model", "m", "--pattern", "near"), "expected --pattern or --model, got both"),
        (("--model", "m", "--host"), "expected --model without --host, --keep and --pages"),
        (("--model", "m", "--decode", "--pages", "16"), "expected --model without --host, --keep and --pages"),
        (("--model", "m", "--layers", "4"), "layers"),
        (("--model", "m", "--inputs", "random"), "since no layer's pattern declares an input"),
        (("--model", "m", "--against", "nope"), "expected names among sdpa"),
    ],
)
def test_wrong_usage_of_a_model(layered: Path, arguments: tuple[str, ...], message: str) -> None:
    result = bench(layered, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
