"""`run`, `bench` and `compile` as a user meets them, on kernels that they build."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invoking import invoke

from sparsec.bench import baseline_calls, baselines
from sparsec.integrations import flex

pytestmark = pytest.mark.kernels


def test_run_compiles_compares_and_times(good: Path) -> None:
    result = invoke("run", good, "--seq-len", "320", "--heads", "4", "--kv-heads", "2", "--head-dim", "16", "--no-flex")
    assert result.exit_code == 0, result.output
    assert "p: 320 tokens, 4 heads on 2 KV heads, head dim 16, float32 on cpu" in result.stdout
    assert "% of the causal pairs" in result.stdout
    assert "passed" in result.stdout
    assert "SDPA dense causal" in result.stdout
    assert "FlexAttention" not in result.stdout


def test_run_fails_when_the_error_is_too_large(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = baselines.compare

    def spoiled(*arguments: object) -> baselines.Comparison:
        pattern, q, k, v, out, given = arguments
        return honest(pattern, q, k, v, out + 1e-3, given)  # type: ignore[arg-type, operator]

    monkeypatch.setattr(baselines, "compare", spoiled)
    result = invoke("run", good, "--seq-len", "200", "--head-dim", "16", "--no-flex")
    assert result.exit_code == 1
    assert "FAILED" in result.stdout


def test_run_says_why_flex_attention_did_not_run(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise flex.FlexUnavailable("no C++ compiler")

    monkeypatch.setattr(baseline_calls, "compile_flex", refuse)
    result = invoke("run", good, "--seq-len", "200", "--head-dim", "16")
    assert result.exit_code == 0, result.output
    assert "FlexAttention did not run: no C++ compiler" in result.stdout


def test_run_takes_scores_sinks_and_documents(good: Path) -> None:
    good.write_text("pattern p { heads 4 kv 2  softcap 9  alibi  learned_sink  documents  causal  attend window(70) }")
    result = invoke("run", good, "--seq-len", "320", "--head-dim", "16", "--no-flex")
    assert result.exit_code == 0, result.stderr
    assert "passed" in result.stdout
    assert "documents: one that fills the sequence" in result.stdout
    assert "sdpa runs without: softcap, alibi, learned sink" in result.stdout
    result = invoke("bench", good, "--seq-len", "64", "--head-dim", "16", "--repeats", "1", "--against", "none")
    assert result.exit_code == 0, result.stderr
    assert "documents: one that fills the sequence" in result.stdout and "without" not in result.stdout


def test_bench_as_json_at_two_lengths(good: Path) -> None:
    arguments = ("--seq-len", "128", "--seq-len", "256", "--head-dim", "16", "--against", "sdpa", "--repeats", "1")
    result = invoke("bench", good, *arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [each["seq_len"] for each in found["results"]] == [128, 256]
    for each in found["results"]:
        assert each["causal"]
        assert each["live_exact"]
        assert each["ideal_speed_up"] == pytest.approx(1 / each["live_fraction"])
        assert each["speed_up"]["sdpa"] == pytest.approx(each["peers_ms"]["sdpa"] / each["ms"])
        assert each["achieved_over_ideal"] == pytest.approx(each["speed_up"]["sdpa"] / each["ideal_speed_up"])
        pairs = each["live_fraction"] * 8 * each["seq_len"] * (each["seq_len"] + 1) / 2
        assert each["useful_gflops"] == pytest.approx(4 * 16 * pairs / each["ms"] / 1e6)


def test_bench_of_the_gradients(good: Path) -> None:
    arguments = ("--seq-len", "128", "--head-dim", "16", "--repeats", "1", "--backward", "--device", "cpu")
    result = invoke("bench", good, *arguments)
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if line.startswith("128 ")]
    assert ["forward + backward" in row for row in rows] == [True, False]
    assert all(row.count("x") == 3 for row in rows), "beside sdpa and eager, and the ideal"
    assert "FlexAttention did not run: it has no backward pass on a CPU" in result.stdout
    result = invoke("bench", good, *arguments, "--against", "eager", "--format", "json")
    (found,) = json.loads(result.stdout)["results"]
    assert sorted(found["both_ms"]) == sorted(found["backward_ms"]) == ["eager", "sparsec"]
    assert found["both_speed_up"]["eager"] == pytest.approx(found["both_ms"]["eager"] / found["both_ms"]["sparsec"])
    assert invoke("bench", good, "--against", "eager").exit_code == 2


def test_bench_of_a_cache_that_drops_keys(good: Path) -> None:
    arguments = "--seq-len", "256", "--head-dim", "16", "--repeats", "1", "--device", "cpu", "--decode"
    assert invoke("bench", good, *arguments, "--keep", "0.25").exit_code == 2, "no input of kind tokens"
    good.write_text("pattern p { heads 4 kv 2 input kept : tokens causal attend window(8) | kept }")
    result = invoke("bench", good, *arguments, "--keep", "0.25", "--format", "json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["results"]
    names = ["dense", "masked", "kept", "window"]
    assert list(found["ms"]) == list(found["bytes"]) == names and found["keep"] == 0.25
    key = 2 * 16 * 4
    assert found["bytes"]["dense"] == 256 * 2 * key and found["bytes"]["window"] * 2 < found["bytes"]["dense"]
    assert found["kept_keys_bytes"] < found["bytes"]["kept"] < found["bytes"]["masked"]
    assert invoke("bench", good, *arguments, "--keep", "0.25", "--against", "sdpa").exit_code == 2
    assert invoke("bench", good, *arguments[:-1], "--keep", "0.25").exit_code == 2, "without --decode"
    narrow = invoke("bench", good, *arguments, "--keep", "0.25", "--kv-dtype", "int8")
    assert narrow.exit_code == 2 and "expected --kv-dtype with --decode or --prefill-chunk" in narrow.stderr


def test_bench_as_a_table(good: Path) -> None:
    result = invoke("bench", good, "--seq-len", "128", "--head-dim", "16", "--against", "none", "--repeats", "1")
    assert result.exit_code == 0, result.output
    head = next(line for line in result.stdout.splitlines() if line.startswith("tokens"))
    assert head.split()[:3] == ["tokens", "live", "ms"]
    assert "sdpa" not in head
    assert invoke("bench", good, "--against", "sdpa,nope").exit_code == 2


def test_compile_writes_a_folder_and_a_table(good: Path) -> None:
    target = good.with_name("built")
    result = invoke("compile", good, "-o", target, "--head-dim", "16")
    assert result.exit_code == 0, result.output
    head, _, *rows = result.stdout.split("\n\n")[0].splitlines()
    assert head.split()[0] == "kernel"
    kernels = ("forward", "attend_chunk", "attend_rows", "store", "add_mass", "backward", "mass")
    assert [row.split()[0] for row in rows] == [f"sparsec_{kernel}" for kernel in kernels]
    assert {"manifest.json", "layout.json"} <= {path.name for path in target.iterdir()}
    assert result.stderr == ""


def test_compile_says_what_a_cache_keeps_and_why_there_is_none(two: Path) -> None:
    two.write_text("pattern a { causal attend window(8) | random(2) }\npattern b { attend full }\n")
    target = two.with_name("built")
    growing = invoke("compile", two, "--pattern", "a", "-o", target, "--head-dim", "16", "--inference")
    assert growing.exit_code == 0, growing.output
    assert f"{two}:1:9: warning[W605]" in growing.stderr and "random(2)" in growing.stderr
    without = invoke("compile", two, "--pattern", "b", "-o", target, "--head-dim", "16", "--inference")
    assert without.exit_code == 0, without.output
    assert without.stderr.startswith("note: pattern `b` has no KV cache: ") and "later key" in without.stderr
    assert [row.split()[0] for row in without.stdout.splitlines()[2:3]] == ["sparsec_forward"]
    assert json.loads((target / "layout.json").read_text())["groups"] is None


def test_compile_for_a_gpu_that_is_not_here(good: Path) -> None:
    target = good.with_name("built")
    arguments = ("--target", "cuda:80", "--dtype", "float16", "--heads", "2", "--inference")
    result = invoke("compile", good, "-o", target, *arguments)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.split("\n\n")[0].splitlines()[2:]]
    assert [row[0] for row in rows] == ["forward_0", "attend_0", "decode_0", "merge", "store"]
    _, registers, spills, stack, shared, tensor_cores = rows[0]
    assert int(registers) > 0
    assert (int(spills), int(stack)) == (0, 0)
    assert int(shared) > 0
    assert int(tensor_cores) > 0
