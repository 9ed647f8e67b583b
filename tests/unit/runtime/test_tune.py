"""`sparsec tune` on a card that is not there, with a clock that is not one: what is timed, chosen, kept and taken."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from card import Machine
from click.testing import CliRunner, Result

import sparsec
from sparsec.bench import clock, tune
from sparsec.bench.baselines import BenchCase
from sparsec.cli.main import commands
from sparsec.plan.candidates import candidates_of
from sparsec.plan.picks import Kind, Pick

TEXT = "pattern p { heads 4 kv 2  causal  attend window(256) | sink(4) }\n"
OPTIONS = ("--head-dim", "64", "--dtype", "bfloat16")
KERNELS = {
    "forward_0": Kind.FORWARD,
    "grad_queries_0": Kind.GRAD_QUERIES,
    "grad_keys_0": Kind.GRAD_KEYS,
    "attend_0": Kind.CHUNK,
    "decode_0": Kind.DECODE,
}


TIMING = tune.Timing.__call__


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    monkeypatch.setenv("SPARSEC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("sparsec.runtime.kernel._KERNELS", {})
    with Machine().running() as made:

        def inputs(case: BenchCase) -> list[torch.Tensor]:
            pattern = case.pattern
            shapes = (
                (case.batch, heads, case.length, case.head_dim) for heads in (pattern.heads, *[pattern.kv_heads] * 2)
            )
            return [made.put(torch.zeros(shape, dtype=case.dtype)) for shape in shapes]

        monkeypatch.setattr(BenchCase, "inputs", inputs)
        monkeypatch.setattr(tune, "check_equal", lambda result, expected: None)
        gradient = lambda forward, leaves: (None, lambda: torch.autograd.grad(out := forward(), leaves, out))  # noqa: E731
        monkeypatch.setattr("sparsec.bench.baselines.passes", gradient)
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "p.sparse"
    path.write_text(TEXT)
    return path


def timed(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, fast: Mapping[tuple[Kind, Pick | None], float]
) -> list[tuple[Kind, Pick | None]]:
    """Kernels take 10 ms, or what `fast` says of theirs; what was timed, in order, each as it was launched."""
    seen: list[tuple[Kind, Pick | None]] = []

    def median_seconds(calls: Mapping[str, Any], **_: object) -> dict[str, SimpleNamespace]:
        machine.forget()
        calls[""]()
        return {"": SimpleNamespace(seconds=1.0)}

    def seconds(self: tune.Timing, kind: Kind, pick: Pick | None) -> list[float]:
        taken = TIMING(self, kind, pick)
        (launch,) = (each for each in machine.launches if KERNELS.get(each.name) is kind)
        if pick is not None:
            options = {"num_warps": pick.warps, "num_stages": pick.stages, "enable_fp_fusion": True}
            assert launch.options == options | ({} if pick.maxnreg is None else {"maxnreg": pick.maxnreg})
        seen.append((kind, pick))
        return [fast.get((kind, pick), 0.01) * each for each in taken]

    monkeypatch.setattr(clock, "median_seconds", median_seconds)
    monkeypatch.setattr(tune.Timing, "__call__", seconds)
    return seen


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(commands, ["tune", *map(str, arguments)], prog_name="sparsec")


def compiled(**options: Any) -> sparsec.SparseAttention:
    return sparsec.compile(TEXT, head_dim=64, dtype=torch.bfloat16, device="cuda:0", **options)


def tiles_of(attn: sparsec.SparseAttention) -> dict[Kind, Pick]:
    return dict(attn.plan.tiles)  # type: ignore[union-attr]  # a KernelPlan


def test_every_candidate_is_timed_and_the_best_are_kept(
    machine: Machine, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = {kind: candidates_of("cuda:90", kind, 64, "bfloat16") for kind in Kind}
    best = {kind: found[2] for kind, found in of.items()}
    seen = timed(monkeypatch, machine, dict.fromkeys(best.items(), 0.005))
    before = compiled()
    given = ("--backward", "--decode", "--prefill-chunk", 40, "--seq-len", 300, "--seq-len", 600)
    result = invoke(file, *OPTIONS, *map(str, given))
    assert result.exit_code == 0, result.output
    assert seen == [(kind, pick if n else None) for kind, found in of.items() for n, pick in enumerate(found)]
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[0] for row in rows if row[-1:] == ["chosen"]] == [kind.value for kind in Kind]
    assert all(row[-2] == "0.50" for row in rows if row[-1:] == ["chosen"])
    assert result.stdout.splitlines()[-1].startswith("kept: tiles={'forward': [128, 128, 8, 2, None]")
    after = compiled()
    assert (tiles_of(before), tiles_of(after)) == ({}, best)
    assert tiles_of(compiled(tiles={})) == {}
    assert tiles_of(compiled(tiles={"chunk": (64, 64, 4, 3)})) == {Kind.CHUNK: Pick(64, 64, 4, 3)}
    assert tiles_of(sparsec.compile(TEXT, head_dim=128, dtype=torch.bfloat16, device="cuda:0")) == {}
    machine.forget()
    with torch.no_grad():
        after(*(machine.put(torch.zeros(1, heads, 300, 64, dtype=torch.bfloat16)) for heads in (4, 2, 2)))
    (launch,) = machine.launches
    assert (launch.programs, launch.options["num_stages"]) == (4 * 3, best[Kind.FORWARD].stages)


def test_nothing_is_kept_where_none_is_faster(machine: Machine, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, first, *_ = candidates_of("cuda:90", Kind.FORWARD, 64, "bfloat16")
    timed(monkeypatch, machine, {(Kind.FORWARD, first): 0.005})
    assert invoke(file, *OPTIONS, "--seq-len", "300").exit_code == 0
    assert tiles_of(compiled()) == {Kind.FORWARD: first}
    timed(monkeypatch, machine, {(Kind.FORWARD, first): 0.0098})
    result = invoke(file, *OPTIONS, "--seq-len", "300")
    assert result.stdout.splitlines()[-1] == "kept: what is taken untuned is the fastest"
    assert tiles_of(compiled()) == {}


def test_another_result_or_a_refusal_is_named_and_not_chosen(
    machine: Machine, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, wrong, refused, *_ = candidates_of("cuda:90", Kind.FORWARD, 64, "bfloat16")
    timed(monkeypatch, machine, {(Kind.FORWARD, pick): 0.001 for pick in (wrong, refused)})
    counted = iter(range(100))

    def check(result: object, expected: object) -> None:
        match next(counted):
            case 0:
                raise tune.Unequal("its result is 3 apart")
            case 1:
                raise RuntimeError("out of shared memory\nand more")

    monkeypatch.setattr(tune, "check_equal", check)
    result = invoke(file, *OPTIONS, "--seq-len", "300", "--format", "json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert [each["error"] for each in report["trials"][:4]] == [
        None,
        "its result is 3 apart",
        "out of shared memory",
        None,
    ]
    assert [each["chosen"] for each in report["trials"]].index(True) == 0 and report["tiles"] == {}
    assert report["trials"][3]["ms"] == [10.0] and report["trials"][1]["ms"] == []
    assert tiles_of(compiled()) == {}


def test_results_differ_by_rounding_alone() -> None:
    exact = torch.tensor([1.0, -100.0], dtype=torch.bfloat16)
    tune.check_equal([exact + torch.tensor([0.0, 1.0], dtype=torch.bfloat16)], [exact])
    for other in (torch.tensor([10.0, -100.0]), torch.tensor([float("nan"), -100.0])):
        with pytest.raises(tune.Unequal, match=r"from that of what is taken untuned, over 3\.12"):
            tune.check_equal([other.bfloat16()], [exact])


def test_a_cpu_has_none_to_choose(file: Path) -> None:
    result = invoke(file, "--device", "cpu")
    assert result.exit_code == 2
    assert result.output.splitlines()[-1] == (
        "error: expected a GPU to tune kernels for, got cpu, whose kernels have no tiles to choose"
    )
