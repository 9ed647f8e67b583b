"""Nothing in sparsec runs text as code, unpickles, or asks a shell; what loads code is listed here with its reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "sparsec"
FILES = sorted(PACKAGE.rglob("*.py"))

MODULES = "pickle cPickle dill cloudpickle marshal shelve joblib yaml code codeop pty commands runpy imp"
CALLS = (
    "eval exec compile __import__ os.system os.popen os.execv os.execve os.execvp os.spawnl os.spawnv "
    "subprocess.getoutput subprocess.getstatusoutput asyncio.create_subprocess_shell importlib.import_module "
    "importlib.reload torch.load torch.hub.load numpy.load np.load torch.utils.cpp_extension.load "
    "torch.utils.cpp_extension.load_inline shutil.unpack_archive tempfile.mktemp types.FunctionType types.CodeType "
    "jinja2.Template"
)
METHODS = "exec_module source_to_code get_code from_string extractall loads CDLL PyDLL LoadLibrary"

ALLOWED = {
    ("backends/triton/modules.py", "exec_module"): "imports generated text, whose digest was checked",
    ("backends/triton/modules.py", "source_to_code"): "the same, and no byte code beside it",
    ("__init__.py", "importlib.import_module"): "modules of this package, by the names of a table, when first used",
    ("testing/__init__.py", "importlib.import_module"): "the same",
    ("distributed/__init__.py", "importlib.import_module"): "the same",
    ("backends/registry.py", "importlib.import_module"): "the backends, by the names of a table, when first asked for",
    ("runtime/build/artefact.py", "CDLL"): "no file: the C library of this process, for one function",
    ("backends/cpu/kernel.py", "CDLL"): "a library whose digest was checked",
    ("bench/own_baselines.py", "importlib.import_module"): "the module that the command line names as a baseline",
    ("bench/files.py", "torch.load"): "tensors alone: with weights_only=True",
    ("bench/files.py", "weights_only"): "the same",
    ("bench/files.py", "numpy.load"): "numbers alone: with allow_pickle=False",
    ("bench/files.py", "allow_pickle"): "the same",
    ("integrations/transformers/saved.py", "eval"): "a module's mode",
    ("integrations/transformers/names.py", "types.FunctionType"): "a function of transformers, with its own code",
}


def dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(name):
            return name
        case ast.Attribute(value, name):
            return f"{dotted(value)}.{name}"
    return ""


def suspicious(tree: ast.AST) -> Iterator[str]:
    """The name of every import or call that could run data as code."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from (name.name for name in names if name.name.split(".")[0] in MODULES.split())
                aliases |= {name.asname: name.name for name in names if name.asname}
            case ast.ImportFrom(module=str(module), names=names):
                if module.split(".")[0] in MODULES.split():
                    yield module
                aliases |= {name.asname or name.name: f"{module}.{name.name}" for name in names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, _, rest = dotted(node.func).partition(".")
            name = ".".join(filter(None, (aliases.get(first, first), rest)))
            if name in CALLS.split():
                yield name
            last = node.func.attr if isinstance(node.func, ast.Attribute) else aliases.get(first, first).split(".")[-1]
            if last in METHODS.split() and name != "json.loads":
                yield last
            for keyword in node.keywords:
                constant = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if keyword.arg == "shell" and constant is not False:
                    yield "shell"
                if keyword.arg in ("cache", "weights_only", "allow_pickle") and dotted(node.func).endswith(
                    ("Lark", "load")
                ):
                    yield keyword.arg


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_runs_data_as_code(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    found = set(suspicious(ast.parse(path.read_text(encoding="utf-8"))))
    assert {call for call in found if (name, call) not in ALLOWED} == set()


def test_every_exception_is_used() -> None:
    found = {(str(p.relative_to(PACKAGE)), call) for p in FILES for call in suspicious(ast.parse(p.read_text("utf-8")))}
    assert found >= ALLOWED.keys()


@pytest.mark.parametrize(
    "text",
    [
        "eval('1')",
        "import pickle",
        "from pickle import loads as read\nread(data)",
        "import yaml",
        "__import__('os')",
        "import os as o\no.system('id')",
        "from os import system\nsystem('id')",
        "import subprocess\nsubprocess.run('id', shell=True)",
        "subprocess.run(x, shell=flag)",
        "import torch\ntorch.load(path)",
        "from importlib import import_module\nimport_module(name)",
        "compile(text, '', 'exec')",
        "spec.loader.exec_module(module)",
        "lark.Lark(text, cache=True)",
        "archive.extractall(path)",
        "environment.from_string(text)",
    ],
)
def test_what_is_looked_for_is_found(text: str) -> None:
    assert set(suspicious(ast.parse(text)))


@pytest.mark.parametrize("text", ["re.compile(x)", "sparsec.compile(p)", "subprocess.run(['id'])", "json.load(f)"])
def test_what_is_harmless_is_not(text: str) -> None:
    assert not set(suspicious(ast.parse(text)))
