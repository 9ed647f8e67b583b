"""What is published works outside the checkout: the sdist builds the wheel, the wheel checks a file."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from sparsec import __version__

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "s2.sparse"


def build(kind: str, source: Path, target: Path) -> Path:
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(target), str(source)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (found,) = target.iterdir()
    return found


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


def data_files(folder: str) -> set[str]:
    """The files of a folder but those that npm makes there."""
    made = {"node_modules", "out", "syntaxes"}
    found = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file())
    return {str(path) for path in found if not made & set(path.parts) and path.name != "LICENSE"}


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" not in project and project["dynamic"] == ["version"]


def test_sdist_holds_what_its_tests_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    wanted = {"LICENSE", "README.md", "pyproject.toml", "tests/constraints.txt", "examples/s2.sparse"}
    assert wanted | data_files("grammar") | data_files("templates") <= names


def test_wheel_holds_grammar_and_templates_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    data = {f"sparsec/_data/{name}" for name in data_files("templates")}
    data |= {f"sparsec/_data/grammar/{name}" for name in ("sparse.lark", "README.md")}
    assert not any("vscode" in name for name in names)
    assert any(name.startswith("sparsec/_data/templates/cpu/") for name in data)
    assert data <= names
    assert "sparsec/py.typed" in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"sparsec"}


def test_installed_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(install, check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # The dependencies come from the environment of the tests, behind the installed wheel.
    site = environment / "lib" / version / "site-packages"
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env={"PATH": "/usr/bin"}
        )

    where = run(str(python), "-c", "import sparsec; print(sparsec.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(environment), where
    told = "import sparsec; from importlib.metadata import version; print(version('sparsec'), sparsec.__version__)"
    assert run(str(python), "-c", told).stdout.split() == [__version__, __version__]
    copy = tmp_path / "s2.sparse"
    copy.write_bytes(EXAMPLE.read_bytes())
    sparsec = str(environment / "bin" / "sparsec")
    checked = run(sparsec, "check", copy.name)
    assert (checked.returncode, checked.stderr) == (0, ""), checked
    copy.write_text("pattern p { attend windw(3) }")
    checked = run(sparsec, "check", copy.name)
    assert checked.returncode == 1
    assert "s2.sparse:1:" in checked.stdout
    source = (
        "import sparsec; from sparsec.pipeline import Lowered; from sparsec.backends.cpu.emit import emit_cpp\n"
        "heads = sparsec.parse('pattern p { causal attend window(9) }').pattern().resolve(1, 1)\n"
        "plan = Lowered(heads).plan_forward(head_dim=16, dtype='float32', query_tile=64, key_tile=64)\n"
        "print(emit_cpp(plan))"
    )
    printed = run(str(python), "-c", source)
    assert "sparsec_forward" in printed.stdout, printed
