"""`sparsec verify` as a user meets it: tables, failures with a command that runs them again, exit codes."""

from __future__ import annotations

import json
import shlex
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import sparsec
from sparsec.cli import proofs
from sparsec.cli.main import commands

GOOD = "pattern p(w = 64) { causal  attend window(w) | sink(4) }\n"
SMALL = ("--target", "torch", "--heads", "2", "--kv-heads", "1", "--head-dim", "8")


def verify(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(commands, ["verify", *map(str, arguments)], prog_name="sparsec")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a file.sparse"
    path.write_text(GOOD)
    return path


def off_by_one(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """Every compilation is of a window that is longer by one."""
    honest = sparsec.compile
    wrong = sparsec.load(file).pattern(w=13)
    monkeypatch.setattr(sparsec, "compile", lambda _, **more: honest(wrong, **more), raising=False)


def test_a_pattern_that_holds(file: Path) -> None:
    result = verify(file, *SMALL, "--examples", "3")
    assert result.exit_code == 0, result.output
    first, head, _, *rows = result.stdout.rstrip().splitlines()
    assert first == "p: target torch on cpu"
    assert head.split("  ")[0] == "property"
    assert [row.split("  ")[0] for row in rows] == ["output and LSE", "exact probes", "gradients", "cache walk"]
    assert all(row.endswith("held") and int(row.split()[-5]) >= 3 for row in rows), rows


def test_every_kind_of_pattern_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "kinds.sparse"
    path.write_text(
        "pattern scored { causal  softcap 2  alibi  learned_sink  attend window(20) }\n"
        "pattern packed { causal  documents  attend window(20) }\n"
        "pattern both_ways { attend full }\n"
        "pattern long { causal  attend window(1024k) }\n"
    )
    result = verify(path, *SMALL, "--examples", "1")
    assert result.exit_code == 0, result.output
    assert "cache walk does not apply: a pattern with documents has no cache" in result.stdout
    assert "lets a query attend to a later key" in result.stdout
    assert "note: no query of any case sees a part of its keys" in result.stdout
    assert "a term counts to 1048576: smaller parameters show more" in result.stdout
    assert result.stdout.splitlines()[-1] == "4 of 4 patterns held"


def test_a_failure_is_printed_with_a_command_that_runs_it_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = (*SMALL, "--set", "w=12", "--seed", "3", "--examples", "12")
    with monkeypatch.context() as patched:
        off_by_one(patched, file)
        result = verify(file, *options)
        assert result.exit_code == 1
        assert result.stdout.count("FAILED") == 4
        assert "output and LSE failed for 1 sequence, " in result.stdout
        assert "farthest off, by " in result.stdout and "which sees keys 0..4, 5..17" in result.stdout.replace(
            "0..17", ""
        )
        lines = [line for line in result.stdout.splitlines() if line.startswith("to run it again: ")]
        commands = [shlex.split(line.removeprefix("to run it again: ")) for line in lines]
        assert len(commands) == 4
        for command in commands:
            assert command[:3] == ["sparsec", "verify", str(file)]
            assert verify(*command[2:]).exit_code == 1
    for command in commands:
        again = verify(*command[2:])
        assert (again.exit_code, "held" in again.stdout) == (0, True), again.output


def test_json(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = json.loads(verify(file, *SMALL, "--examples", "2", "--format", "json").stdout)
    assert (found["pattern"], found["held"], found["claims"], found["notes"]) == ("p", True, [], [])
    assert [each["property"] for each in found["properties"]] == ["forward", "probes", "gradients", "cache"]
    assert {each["status"] for each in found["properties"]} == {"held"}
    off_by_one(monkeypatch, file)
    result = verify(file, *SMALL, "--case", "forward,queries=1,keys=80,offset=79", "--format", "json")
    (found,) = json.loads(result.stdout)
    (forward,) = found["properties"]
    assert (result.exit_code, found["held"], forward["status"]) == (1, False, "failed")
    assert forward["failure"]["command"].endswith("--case forward,queries=1,keys=80,offset=79,batch=1,seed=0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--case", "forward,queries=0"), "expected a case as a failure prints it"),
        (("--case", f"forward,queries=3,keys=5,offset={2**29 - 3}"), "expected positions below 2**29, got q_offset"),
        (("--case", f"forward,queries=3,keys=5,offset=-{10**24}"), "expected positions below 2**29, got q_offset"),
        (("--case", f"forward,queries=3,keys=5,offset=2,seed={2**64}"), f"seed between 0 and {2**64 - 1}, got"),
        (("--seed", str(2**64)), "seed"),
        (("--examples", "-1"), "examples"),
        (("--examples", "0"), "expected --prove with --examples 0"),
        (("--set", "nope=3"), "nope"),
        (("--pattern", "nope"), "got 'nope'"),
        (("--target", "cuda"), "target"),
        (("--device", "moon"), "expected a device of this machine"),
    ],
)
def test_wrong_usage(file: Path, arguments: tuple[str, ...], message: str) -> None:
    result = verify(file, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_a_case_wants_one_pattern(tmp_path: Path) -> None:
    path = tmp_path / "two.sparse"
    path.write_text("pattern a { attend full }\npattern b { attend none }\n")
    result = verify(path, "--case", "forward,queries=1,keys=1,offset=0")
    assert result.exit_code == 2
    assert "expected --pattern with --case, one of: a, b" in result.stderr


def test_without_hypothesis_the_message_names_the_extra(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sparsec.testing.verify", "sparsec.testing.cases"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr(sparsec.testing, "verify", raising=False)
    monkeypatch.delattr(sparsec.testing, "cases", raising=False)
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    result = verify(file, *SMALL)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: expected the package hypothesis, which is not installed: pip install ")
    assert "'sparsec[testing]'" in result.stderr


def test_without_z3_the_message_names_the_extra(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prove(*_: Any, **__: Any) -> None:
        import_module("z3")

    stand_in = ModuleType("sparsec.prove")
    stand_in.prove_compilation = prove  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sparsec.prove", stand_in)
    monkeypatch.setitem(sys.modules, "z3", None)
    result = verify(file, *SMALL, "--prove", "--examples", "0")
    assert result.exit_code == 2
    assert "expected the package z3, which is not installed: pip install 'sparsec[prove]'" in result.stderr


def test_without_z3_no_case_is_run_first(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("expected the prover to be looked for before anything is compiled")

    for name in [name for name in sys.modules if name.startswith("sparsec.prove")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sparsec, "compile", refuse, raising=False)
    monkeypatch.setitem(sys.modules, "z3", None)
    result = verify(file, *SMALL, "--prove")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "expected the package z3, which is not installed" in result.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU runs Triton")
def test_triton_without_a_gpu_is_one_message(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    triton = pytest.importorskip("sparsec.backends.triton.kernel")
    monkeypatch.setattr(triton, "interpreted", lambda: False)
    result = verify(file, *SMALL, "--target", "triton", "--examples", "1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: expected tensors on a GPU, got the CPU's: there Triton runs only under TRITON_INTERPRET=1\n"
    )


def claims(monkeypatch: pytest.MonkeyPatch, *statuses: str) -> dict[str, Any]:
    """Stands in for the proofs; gives what they are called with."""
    called: dict[str, Any] = {}

    def prove(compilation: Any, **more: Any) -> tuple[Any, ...]:
        called.update(more, compilation=compilation)
        return tuple(
            SimpleNamespace(
                name=f"claim {n}",
                about="heads 0",
                status=status,
                seconds=0.002,
                counterexample={"i": 1088, "j": 127} if status == "refuted" else None,
                inputs=("picks (rows): query 1088: key 127",) if status == "refuted" else (),
                picture="#.#",
            )
            for n, status in enumerate(statuses)
        )

    stand_in = ModuleType("sparsec.prove")
    stand_in.prove_compilation = prove  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sparsec.prove", stand_in)
    return called


@pytest.mark.parametrize("status", ["proved", "refuted", "not proved"])
def test_proofs(file: Path, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = claims(monkeypatch, "proved", status)
    result = verify(file, *SMALL, "--examples", "0", "--prove", "--dtype", "bfloat16")
    assert result.exit_code == (0 if status == "proved" else 1)
    of = called["compilation"]
    assert (of.pattern.heads, of.head_dim, of.dtype, of.target) == (2, 8, "bfloat16", "torch")
    rows = [line for line in result.stdout.splitlines() if "2 ms" in line]
    assert [row.split("2 ms")[1].strip() for row in rows] == ["proved", status]
    told = "is refuted at i = 1088, j = 127\npicks (rows): query 1088: key 127\n#.#"
    assert (told in result.stdout) == (status == "refuted")
    (found,) = json.loads(verify(file, *SMALL, "--examples", "0", "--prove", "--format", "json").stdout)
    assert [claim["status"] for claim in found["claims"]] == ["proved", status]
    assert found["held"] == (status == "proved")


def test_proofs_by_z3(file: Path) -> None:
    pytest.importorskip("z3")
    result = verify(file, *SMALL, "--examples", "0", "--prove")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("p: the plan for torch\n")
    assert "coverage" in result.stdout and result.stdout.count("proved") >= 6


def test_a_proof_that_takes_too_long_is_none(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("z3")
    monkeypatch.setattr(proofs, "CLAIM_SECONDS", 0.0)
    result = verify(file, *SMALL, "--examples", "0", "--prove")
    assert result.exit_code == 1
    (row,) = (line for line in result.stdout.splitlines() if line.startswith("forward") and " coverage " in line)
    assert row.endswith("  not proved")
    (found,) = json.loads(verify(file, *SMALL, "--examples", "0", "--prove", "--format", "json").stdout)
    assert not found["held"]
    assert {each["status"] for each in found["claims"] if each["name"] in ("coverage", "storage")} == {"not proved"}


@pytest.mark.parametrize("kind", ["rows", "blocks", "tokens", "labels"])
def test_inputs_are_drawn_or_given(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "p.sparse"
    file.write_text(f"pattern p {{ block 16 input x : {kind} causal attend x | window(3) }}")
    assert verify(file, *SMALL, "--examples", "4").exit_code == 0
    result = verify(file, *SMALL, "--examples", "2", "--inputs", "random:density=0.3,seed=2")
    assert result.exit_code == 0, result.output
    torch.save(torch.zeros(1), given := tmp_path / "x.pt")
    result = verify(file, *SMALL, "--inputs", f"x={given}")
    assert result.exit_code == 2 and "expected random contents, since lengths are drawn" in result.stderr


def test_a_failure_with_inputs_runs_again_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "p.sparse"
    file.write_text("pattern p(w = 12) { block 16 input x : rows causal attend x | window(w) }")
    off_by_one(monkeypatch, file)
    result = verify(file, *SMALL, "--inputs", "x=random:count=2")
    assert result.exit_code == 1 and " --inputs x=random:count=2 " in result.stdout
