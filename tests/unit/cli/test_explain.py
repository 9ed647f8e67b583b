"""`sparsec explain`: what a pattern is held against, and which item of a file `--set` speaks to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sparsec.cli.main import commands
from sparsec.cli.options import DTYPES, SHORT_DTYPES

FILE = """
param far = 2

pattern local(size = 16) { causal  attend window(size) }
pattern dense { causal  attend full }
model m(size = 64) {
    layers 4
    where l == 0 use dense
    otherwise    use local(size = far * size)
}
"""


def explain(path: Path, *arguments: str) -> Result:
    result = CliRunner().invoke(commands, ["explain", str(path), *arguments], prog_name="sparsec")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def priced(path: Path, *arguments: str) -> list[dict[str, object]]:
    result = explain(path, "--seq-len", "256", "--heads", "1", "--format", "json", *arguments)
    assert result.exit_code == 0, result.output
    found: list[dict[str, object]] = json.loads(result.stdout)["parts"]
    return found


def written(folder: Path, text: str) -> Path:
    path = folder / "p.sparse"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("body", "live", "dense", "causal"),
    [
        ("attend full", 256 * 256, 256 * 256, False),
        ("causal attend full", 256 * 257 // 2, 256 * 257 // 2, True),
        ("attend window(1, ahead = 1)", 2 * 256 - 1, 256 * 256, False),
        ("causal attend window(1)", 256, 256 * 257 // 2, True),
    ],
)
def test_live_pairs_are_shares_of_what_the_pattern_could_see(
    tmp_path: Path, body: str, live: int, dense: int, causal: bool
) -> None:
    (part,) = priced(written(tmp_path, f"pattern e {{ {body} }}"))
    assert (part["live_pairs"], part["dense_pairs"], part["causal"]) == (live, dense, causal)


def test_the_share_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "pattern e { attend full }")
    assert "100% of all pairs              1x" in explain(path, "--seq-len", "256").stdout
    path = written(tmp_path, "pattern e { causal attend full }")
    assert "100% of the causal pairs              1x" in explain(path, "--seq-len", "256").stdout


@pytest.mark.parametrize("named", [("--model", "m"), ()])
def test_settings_of_a_model(tmp_path: Path, named: tuple[str, ...]) -> None:
    path = written(tmp_path, FILE)

    def windows(*settings: str) -> list[object]:
        return [part["live_pairs"] for part in priced(path, *named, *settings)]

    def window(size: int) -> int:
        return sum(min(i + 1, size) for i in range(256))

    dense = 256 * 257 // 2
    assert windows() == [dense, window(128)]
    assert windows("--set", "size=8") == [dense, window(16)]
    assert windows("--set", "size=8", "--set", "far=3") == [dense, window(24)]


def test_a_setting_that_the_model_lacks(tmp_path: Path) -> None:
    path = written(tmp_path, FILE.replace("m(size = 64)", "m").replace("far * size", "far"))
    result = explain(path, "--model", "m", "--set", "size=8")
    assert result.exit_code == 2
    assert "model 'm' has no parameter 'size': its parameters: far; it is one of pattern local" in result.stderr
    assert [part["live_pairs"] for part in priced(path, "--pattern", "local", "--set", "size=1")] == [256]


@pytest.mark.parametrize(("given", "name"), [*SHORT_DTYPES.items(), *((name, name) for name in DTYPES)])
def test_short_names_of_dtypes(tmp_path: Path, given: str, name: str) -> None:
    path = written(tmp_path, "pattern e { attend full }")
    assert f"head dim 128, {name}, 64 tokens" in explain(path, "--seq-len", "64", "--dtype", given).stdout


@pytest.mark.parametrize("command", ["explain", "run", "bench", "verify", "compile"])
def test_every_command_takes_them(tmp_path: Path, command: str) -> None:
    """Refused for the missing file, not for the dtype."""
    for given in SHORT_DTYPES:
        result = CliRunner().invoke(commands, [command, str(tmp_path / "none.sparse"), "--dtype", given])
        assert result.exit_code == 2 and "--dtype" not in result.stderr, result.stderr
    result = CliRunner().invoke(commands, [command, str(written(tmp_path, FILE)), "--dtype", "fp8"])
    assert "'fp8' is not one of 'float32', 'bfloat16', 'float16'" in result.stderr


def test_what_travels_between_ranks(tmp_path: Path) -> None:
    path = written(tmp_path, "pattern e { heads 4 kv 2  causal  attend sink(4) | window(100) }")
    options = ("--seq-len", "4096", "--ranks", "4", "--head-dim", "8", "--dtype", "float32")
    shown = explain(path, *options).stdout
    assert "Between 4 ranks, 1024 to 1024 tokens each, in at most 1 chunk; the most work of one is 1.0" in shown
    (found,) = json.loads(explain(path, *options, "--format", "json").stdout)["ranks"]
    row = 2 * 8 * 4
    assert found["sent"] == [(99 + 3 * 4) * 2 * row, 99 * 2 * row, 99 * 2 * row, 0]
    assert found["by_group"] == [(3 * 99 + 3 * 4) * row] * 2
    assert found["all_gather"] == 3 * 1024 * 2 * row
    assert found["share_of_all_gather"] == pytest.approx((3 * 99 + 12) / (4 * 3 * 1024))


def test_more_ranks_than_tokens(tmp_path: Path) -> None:
    result = explain(written(tmp_path, FILE), "--pattern", "local", "--seq-len", "4", "--ranks", "5")
    assert result.exit_code == 2 and "expected at least as many tokens as ranks, 5, got 4" in result.stderr


def test_layers_of_a_model_that_leaves_them_out(tmp_path: Path) -> None:
    path = written(tmp_path, FILE.replace("    layers 4\n", ""))
    assert [part["layers"] for part in priced(path, "--layers", "3")] == [[0], [1, 2]]
    for arguments, message in (
        (("--model", "m"), "expected layers=..., since its file gives none"),
        (("--layers", "3", "--pattern", "dense"), "expected --layers with a model, got a pattern"),
    ):
        result = explain(path, "--heads", "1", *arguments)
        assert result.exit_code in (1, 2) and message in result.output


def test_several_patterns_stand_side_by_side(tmp_path: Path) -> None:
    text = "pattern ahead { attend window(4, ahead = 4) }\n" + FILE
    path = written(tmp_path, text)
    both = "--pattern", "local", "--pattern", "dense", "--pattern", "ahead"
    shown = explain(path, *both, "--seq-len", "256", "--heads", "2").stdout
    assert shown.startswith("patterns local, dense, ahead: 2 query heads on 2 KV heads")
    assert "ahead has no KV cache" in shown
    (line,) = (line for line in shown.splitlines() if line.startswith("256 "))
    assert line.split() == ["256", "16", "KiB", "256", "KiB", "256", "KiB"]  # local, dense, and dense attention
    data = json.loads(explain(path, *both, "--seq-len", "256", "--heads", "2", "--format", "json").stdout)["patterns"]
    alone = [
        json.loads(explain(path, "--pattern", name, "--seq-len", "256", "--heads", "2", "--format", "json").stdout)
        for name in ("local", "dense", "ahead")
    ]
    assert data == alone
    ranks = explain(path, *both[:4], "--seq-len", "256", "--heads", "2", "--ranks", "2").stdout
    assert ranks.index("pattern local") < ranks.index("pattern dense")


def test_several_patterns_that_cannot_stand_so(tmp_path: Path) -> None:
    path = written(tmp_path, FILE + "pattern two { heads 2 kv 2  causal  attend full }")
    for arguments, message in (
        (("--pattern", "local", "--pattern", "local"), "expected each pattern once, got local, local"),
        (("--pattern", "local", "--pattern", "two"), "expected patterns of equal head counts"),
        (("--pattern", "local", "--model", "m"), "expected --pattern or --model, got both"),
    ):
        result = explain(path, *arguments)
        assert result.exit_code != 0 and message in result.stderr, result.output


@pytest.fixture
def short(tmp_path: Path) -> Path:
    path = tmp_path / "short.sparse"
    path.write_text("pattern p { causal  attend window(16) }")
    return path


@pytest.mark.parametrize(("given", "tokens"), [("2048", 2048), ("2k", 2048), ("2K", 2048), ("1m", 1 << 20)])
def test_lengths_have_units(given: str, tokens: int, short: Path) -> None:
    assert f", {tokens} tokens" in explain(short, "--seq-len", given).stdout


@pytest.mark.parametrize("given", ["", "k", "2kk", "2g", "-2k", "2.5k", "1" * 19 + "M"])
def test_other_lengths_are_refused(given: str, short: Path) -> None:
    result = explain(short, f"--seq-len={given}")
    assert result.exit_code == 2
    assert "expected a number of tokens such as 131072 or 128k" in result.output
