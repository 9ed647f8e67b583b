"""Files that import others: names, parameters, models, texts in the place of files, and where problems are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import sparsec
from sparsec.cli.main import commands
from sparsec.diagnostics.model import CallError, DiagnosticError
from sparsec.syntax.parser import parse
from sparsec.syntax.printer import print_file
from sparsec.testing import sparse_text

MAIN = """import "lib/base.sparse"
import "lib/other.sparse" as lib

param size = 4

# Beside what it imports.
pattern own {
    heads 2
    causal
    attend local(size = 3) | lib.far(n = 2) | columns(0..size)
}

model m {
    layers 3
    where l == 0 use lib.far
    otherwise    use local
}
"""
BASE = """import "deep/x.sparse" as d
param size = 8
pattern local(size = size + 1) { causal  attend window(size) | d.inner }
"""
OTHER = """import "base.sparse"
param size = 16
pattern far(n = size) { causal  attend sink(n) | local(size = size) | near }
pattern near { input picks : rows  let size = 7  causal  attend window(size) & picks }
model other { layers 2  use far }
"""
DEEP = "param size = 5\npattern inner { attend stride(size) }\n"
TEXTS = {"lib/base.sparse": BASE, "lib/other.sparse": OTHER, "lib/deep/x.sparse": DEEP}


def files(folder: Path, main: str = MAIN, **changed: str) -> Path:
    """The files on disk; the first one's path."""
    for path, text in {"main.sparse": main, **TEXTS, **changed}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder / "main.sparse"


def terms(program: sparsec.Program, name: str | None = None, **params: int) -> str:
    return sparse_text(program.pattern(name, **params).resolve(2)).split("attend ")[1].split("  #")[0]


def test_names_of_three_files_that_use_the_same_ones(tmp_path: Path) -> None:
    program = sparsec.load(files(tmp_path))
    assert program.patterns == ("own", "local", "lib.far", "lib.near")
    assert program.models == ("m", "lib.other")
    assert terms(program, "local") == "(window(9) | stride(5)) & causal"
    assert terms(program, "lib.near") == "window(7) & input0 & causal".replace("input0", "picks")
    far = "(sink({}) | ((window(16) | stride(5)) & causal) | (window(7) & picks & causal)) & causal"
    assert terms(program, "lib.far") == far.format(16)
    assert terms(program) == f"(((window(3) | stride(5)) & causal) | ({far.format(2)}) | columns(0..4)) & causal"
    assert terms(program, "own", size=6).count("columns(0..6)") == 1
    layers = program.model("m")
    assert [layers.layer(each).name for each in range(3)] == ["lib.far", "local", "local"]
    assert program.pattern().name == "own" and program.model().name == "m"
    assert len(program.model("lib.other")) == 2


def test_texts_in_the_place_of_files(tmp_path: Path) -> None:
    program = sparsec.load(files(tmp_path))
    assert program.imports == TEXTS and program.source.text == MAIN
    assert program.pattern("lib.far").source.text == OTHER
    again = sparsec.parse(program.source.text, "main.sparse", imports=program.imports)
    assert [terms(again, name) for name in again.patterns] == [terms(program, name) for name in program.patterns]
    with pytest.raises(DiagnosticError, match=r"(?s)E017.*no folder"):
        sparsec.parse(MAIN)
    with pytest.raises(DiagnosticError, match="E017"):
        sparsec.parse(MAIN, imports={"lib/base.sparse": BASE})


@pytest.mark.parametrize(
    ("imports", "said"),
    [
        (
            {"a.sparse": "# \ud800"},
            r"imports\['a.sparse'\] to be text that UTF-8 can hold, got '\\ud800' at .* 2",
        ),
        ({"a.sparse": b"#"}, r"expected imports\['a.sparse'\] of type str, got bytes"),
        ({b"a.sparse": "#"}, "expected a path of imports of type str, got bytes"),
        (["a.sparse"], "expected imports to map paths to texts, got list"),
    ],
)
def test_what_is_no_text_in_the_place_of_a_file(imports: Any, said: str) -> None:
    with pytest.raises(CallError, match=said):
        sparsec.parse('import "a.sparse"\npattern p { attend full }', imports=imports)


def test_problems_are_shown_in_their_own_file(tmp_path: Path) -> None:
    with pytest.raises(DiagnosticError) as raised:
        sparsec.load(files(tmp_path, **{"lib/deep/x.sparse": "\n\npattern inner {\n    attend window(0)\n}\n"}))
    (found,) = raised.value.diagnostics
    assert (found.code, found.line, found.column) == ("E403", 4, 19)
    assert found.source.name == str(tmp_path / "lib/deep/x.sparse")
    assert str(raised.value).split("\n")[2] == "4 |     attend window(0)"


@pytest.mark.parametrize(
    ("main", "where", "code"),
    [
        ('import "lib/base.sparse"\npattern p { attend local(size = 2b) }', "main.sparse:2", "E202"),
        ('import "lib/base.sparse"\npattern p { attend locl }', "main.sparse:2", "E101"),
        ('import "lib/base.sparse"\npattern p { attend inner }', "main.sparse:2", "E101"),
        ('import "lib/base.sparse" as b\npattern p { attend b.d.inner }', "main.sparse:2", "E005"),
        ('import "lib/base.sparse" as b\npattern p { attend local }', "main.sparse:2", "E101"),
        ('import "lib/base.sparse" as b\npattern p { attend window(b.size) }', "main.sparse:2", "E101"),
        ('import "lib/base.sparse"\npattern p { causal attend local & window(size) }', "main.sparse:2", "E101"),
        ('import "lib/none.sparse"\npattern p { attend of_none | window(0) }', "main.sparse:1", "E017"),
        ('pattern p { attend full }\nimport "lib/base.sparse" as p', "main.sparse:2", "E102"),
        ("import lib/base.sparse\npattern p { attend full }", "main.sparse:1", "E010"),
    ],
)
def test_a_mistake_in_the_file_that_imports(tmp_path: Path, main: str, where: str, code: str) -> None:
    with pytest.raises(DiagnosticError) as raised:
        sparsec.load(files(tmp_path, main))
    found = [(Path(each.source.name).name + f":{each.line}", each.code) for each in raised.value.diagnostics]
    assert found[0] == (where, code) and len(found) <= 2
    assert not any(" " in each.message.split("`")[1] for each in raised.value.diagnostics if "`" in each.message)


def test_hints(tmp_path: Path) -> None:
    for main, hint in (
        ("import lib/base.sparse\npattern p { attend full }", 'write `import "other.sparse"`'),
        ('import "lib/base.sparse"\npattern p { attend locl }', "did you mean `local`?"),
        ('import "lib/base.sparse" as b\npattern p { attend b.loca }', "did you mean `b.local`?"),
    ):
        with pytest.raises(DiagnosticError, match="help") as raised:
            sparsec.load(files(tmp_path, main))
        assert hint in str(raised.value)


def test_warnings_are_of_the_file_itself(tmp_path: Path) -> None:
    idle = "pattern inner { attend window(4) | window(9) }\n"
    program = sparsec.load(files(tmp_path, **{"lib/deep/x.sparse": idle}))
    assert program.diagnostics == ()
    assert {each.code for each in sparsec.load(tmp_path / "lib/deep/x.sparse").diagnostics} == {"W604"}


def test_a_file_of_imports_and_a_model_alone(tmp_path: Path) -> None:
    program = sparsec.load(files(tmp_path, 'import "lib/deep/x.sparse"\nmodel m { layers 2 use inner }'))
    assert program.patterns == ("inner",) and program.pattern().name == "inner"
    with pytest.raises(CallError, match="has no parameter 'size': its parameters: none"):
        program.pattern("inner", size=3)


def test_fmt_keeps_imports() -> None:
    text = (
        '#  Two.\nimport   "a.sparse"\nimport "b/c d.sparse"   as  x # other\nparam n=4\npattern p{attend x.q(n=n)|r}'
    )
    file, problems = parse(sparsec.diagnostics.source.SourceFile("f", text))
    assert file is not None and not problems
    printed = print_file(file)
    assert printed == (
        '#  Two.\nimport "a.sparse"\nimport "b/c d.sparse" as x  # other\n\nparam n = 4\n\n'
        "pattern p {\n    attend x.q(n = n) | r\n}\n"
    )
    again, _ = parse(sparsec.diagnostics.source.SourceFile("f", printed))
    assert again is not None and print_file(again) == printed


def test_the_root_of_the_command_line(tmp_path: Path) -> None:
    files(tmp_path)
    inner = tmp_path / "inner" / "main.sparse"
    inner.parent.mkdir()
    inner.write_text('import "../lib/base.sparse"\npattern p { attend local }\n')

    def exits(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(commands, [*arguments], prog_name="sparsec")
        return result.exit_code, result.output

    for command in (("check",), ("lower", "--pattern", "p", "--emit", "terms")):
        assert "E018" in exits(*command, str(inner))[1]
        assert exits(*command, str(inner), "--root", str(tmp_path))[0] == 0
        assert "expected a root that holds" in exits(*command, str(inner), "--root", str(tmp_path / "lib"))[1]
    assert sparsec.load(inner, root=tmp_path).patterns == ("p", "local")
