"""The public kit: `for_patterns`, the pytest plugin, and the example that uses them on two implementations."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import sparsec
from sparsec.diagnostics.model import CallError, DiagnosticError
from sparsec.testing import for_patterns, plugin, verify
from sparsec.testing.cases import Case

pytestmark = pytest.mark.kernels

ROOT = Path(__file__).parents[3]
TESTS = """
import pytest
import sparsec
from sparsec.testing import for_patterns, patterns, sparse_text

FILE = "two.sparse"

def compiled(pattern):
    return sparsec.compile(sparse_text(pattern), head_dim=8, target="torch", device="cpu")

@pytest.fixture
def shift():
    return 1

@for_patterns(FILE, heads=2, examples=4)
def test_file(pattern):
    return compiled(pattern)

@for_patterns(FILE, name="near", params={"w": 12}, heads=2, examples=12)
def test_wrong(pattern, shift):
    wrong = sparsec.load(FILE).pattern("near", w=12 + shift)
    return sparsec.compile(wrong, heads=2, head_dim=8, target="torch", device="cpu")

@for_patterns(patterns(max_heads=2, blocks=(16,), scored=True), examples=5)
def test_drawn(pattern):
    return compiled(pattern)

@for_patterns(patterns(max_heads=2, blocks=(16,)), examples=40)
def test_drawn_wrong(pattern):
    return sparsec.compile("pattern p { attend full }", heads=pattern.heads, kv_heads=pattern.kv_heads, head_dim=8,
                           target="torch", device="cpu")

@for_patterns("pattern p { heads 1 attend full }")
def test_nothing_returned(pattern):
    pass
"""
TWO = "pattern near(w = 20) { causal  attend window(w) }\npattern far { block 16  causal  attend stride(3b) }\n"


def run_pytest(folder: Path, *arguments: str) -> str:
    """The output of pytest with the plugin, as an installed sparsec would have it."""
    command = [sys.executable, "-m", "pytest", "-p", "sparsec.testing.plugin", "-p", "no:cacheprovider", *arguments]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": paths, "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "two.sparse").write_text(TWO)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def test_for_patterns_under_pytest(folder: Path) -> None:
    (folder / "test_these.py").write_text(TESTS)
    out = run_pytest(folder, "-v", "--tb=short")
    for test in ("test_file[near] PASSED", "test_file[far] PASSED", "test_drawn PASSED"):
        assert test in out, out
    assert "test_wrong[near] FAILED" in out and "13 keys" in out and "attend window(12) & causal" in out, out
    assert "test_drawn_wrong FAILED" in out and "pattern failing {" in out, out
    assert "expected the test to return the attention to check, got None" in out, out
    assert "3 failed, 3 passed" in out, out


def test_for_patterns_refuses_what_cannot_be_a_test(folder: Path) -> None:
    with pytest.raises(CallError, match="expected a test with the argument `pattern`"):
        for_patterns(TWO)(lambda: None)
    with pytest.raises(CallError, match="got 'nope'"):
        for_patterns(folder / "two.sparse", name="nope", heads=1)(lambda pattern: None)
    with pytest.raises(CallError, match=r"expected a path, a text, a Pattern or a strategy.*got Program"):
        for_patterns(sparsec.parse(TWO))  # type: ignore[arg-type]
    with pytest.raises(CallError, match=r"as in @for_patterns\('file\.sparse'\), got <function"):
        for_patterns(lambda pattern: None)  # type: ignore[arg-type]
    with pytest.raises(CallError, match="examples of at least 1, got 0"):
        for_patterns(TWO, examples=0)
    with pytest.raises(DiagnosticError, match="E101"):
        for_patterns("pattern p { attend windw(3) }")(lambda pattern: None)


def test_the_plugin_collects_sparse_files_when_asked(folder: Path) -> None:
    assert "no tests ran" in run_pytest(folder)
    out = run_pytest(folder, "--sparse", "--sparse-target", "torch", "--sparse-examples", "2", "-v")
    for check in ("forward", "probes", "gradients", "cache"):
        assert f"two.sparse::near:{check} PASSED" in out and f"two.sparse::far:{check} PASSED" in out, out
    (folder / "two.sparse").write_text("pattern p { attend windw(3) }")
    out = run_pytest(folder, "--sparse")
    assert "error[E101]" in out and "1 error" in out and "Traceback" not in out, out


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--sparse-examples", "0", "expected a whole number of at least 1, got '0'"),
        ("--sparse-target", "foo", "invalid choice: 'foo'"),
        pytest.param(
            *("--sparse-target", "triton", "--sparse-target triton: expected tensors on a GPU"),
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="Triton runs here"),
        ),
    ],
)
def test_an_option_that_cannot_be_is_one_usage_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str, message: str
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    out = run_pytest(folder, "--sparse", option, value)
    assert out.count("ERROR") == 1 and message in out, out
    assert "two.sparse" not in out and "Traceback" not in out, out


def test_the_command_that_runs_a_failure_again_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("forward", 1, 3, 2)
    result = verify.Result("forward", failure=verify.Failure(case, "what differs"))
    monkeypatch.setattr(verify, "verify_one", lambda *_, **__: result)
    monkeypatch.setattr(plugin, "_subject", lambda *_: SimpleNamespace(attn=SimpleNamespace(target="torch")))
    item: Any = SimpleNamespace(
        pattern=sparsec.parse("pattern p { attend full }").pattern(),
        check="forward",
        path=Path("f/one two's.sparse"),
        config=SimpleNamespace(getoption=lambda name: None),
    )
    with pytest.raises(AssertionError, match="what differs") as raised:
        plugin.PropertyItem.runtest(item)
    command = str(raised.value).partition("to run it again: ")[2]
    expected = ["f/one two's.sparse", "--pattern", "p", "--target", "torch", "--case", str(case)]
    assert shlex.split(command) == ["sparsec", "verify", *expected]


def test_the_plugin_is_registered_and_light() -> None:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        points = tomllib.load(stream)["project"]["entry-points"]["pytest11"]
    assert points == {"sparsec": "sparsec.testing.plugin"}
    assert hasattr(import_module(points["sparsec"]), "pytest_collect_file")
    code = "import sys, sparsec.testing.plugin; print(sorted({'torch', 'triton', 'hypothesis'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_hypothesis_the_message_names_the_extra() -> None:
    code = "import sys; sys.modules['hypothesis'] = None; import sparsec; sparsec.testing.sparse_text; print('fine')\n"
    code += "sparsec.testing.check_attention"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "fine\n"
    assert "ModuleNotFoundError: sparsec.testing needs hypothesis: pip install 'sparsec[testing]'" in done.stderr


def test_the_example_finds_its_planted_mistakes() -> None:
    out = run_pytest(ROOT, "-o", "addopts=", "examples/attention_tests.py", "--runxfail", "--tb=short", "-v")
    for name in ("test_flex_attention[s2]", "test_block_wise[mistral]"):
        assert f"{name} PASSED" in out, out
    wrong = ("test_a_phase_of_the_wrong_sign[s2]", "test_a_window_off_by_one[mistral]", "test_a_dropped_block[mistral]")
    for name in wrong:
        assert f"{name} FAILED" in out, out
    assert "101 keys" in out, out  # the first length at which the windows differ


def test_the_example_is_not_among_this_repositorys_tests() -> None:
    out = run_pytest(ROOT, "-o", "addopts=", "-o", "testpaths=examples", "--collect-only", "-q")
    assert "no tests" in out, out
