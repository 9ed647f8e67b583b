"""The headers of the CPU kernels: each compiles alone, is formatted, and comes into the kernels that need it alone."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path

import pytest

import sparsec
from sparsec.backends.cpu import calls
from sparsec.backends.cpu.calls import CallStruct
from sparsec.backends.cpu.emit import emit_cpp, emit_cpp_backward, emit_cpp_mass, packs_by_kind
from sparsec.backends.cpu.emit_cached import emit_cpp_cached, views
from sparsec.backends.cpu.emit_paged import emit_cpp_paged
from sparsec.backends.cpu.inputs import view_of
from sparsec.backends.cpu.kernel import compile_shared, find_compiler, has_compiler
from sparsec.backends.cpu.source import CHUNK, ROWS, joined_headers, parsed_header, printed_headers
from sparsec.backends.cpu.view import KeptView
from sparsec.ir.bands.band import Asks, InputTest
from sparsec.pipeline import Compilation, Lowered
from sparsec.sema.inputs import input_statement
from sparsec.sema.model import InputKind
from sparsec.sema.modifiers import ENTRIES, Given, Takes, statement_text
from sparsec.testing.drawn import FORMS, declaration

pytestmark = pytest.mark.kernels
ROOT = Path(__file__).parents[3]
KERNELS = ROOT / "templates" / "cpu" / "kernels"
HEADERS = sorted(KERNELS.rglob("*.h"))
STRUCTS = (calls.LIST, calls.LOOKUP, calls.MARKS, calls.KEPT, calls.FORWARD, calls.BACKWARD, calls.MASS, calls.CACHED)
STRUCTS += (calls.PAGED,)


def with_every_modifier(heads: int) -> str:
    """The statements of a pattern that changes its scores in every way."""
    of_heads, lean = (1.0,) * heads, 0
    given: dict[Takes, Given] = dict(zip(Takes, (None, 30.0, of_heads, lean), strict=True))
    modifiers = (
        statement_text(name, None if entry.alone else given[entry.takes], ("lean",)) for name, entry in ENTRIES.items()
    )
    return f"causal input lean : weights {' '.join(modifiers)} attend window(70)"


def compilation(text: str, dtype: str, heads: int) -> Compilation:
    pattern = sparsec.parse(f"pattern p {{ {text} }}").pattern().resolve(heads, heads // 2)
    return Compilation(Lowered(pattern), 64, 64, dtype, "cpu")


def sample() -> dict[str, str]:
    """What is printed beside the headers, for one pattern; of every kernel what it alone has."""
    plans = compilation(with_every_modifier(2), "float32", 2).cached
    chunks, rows = views(*plans, "sparsec")
    packs, kinds = packs_by_kind(plans[1].attend)
    headers = dict.fromkeys(view_of(InputTest(0, asks)).header for asks in Asks)
    kept = KeptView(1, 1, "{0}", "{{1u}}")
    chunks = replace(chunks, inputs=tuple(headers), lookups=len(headers), kept=kept)
    of_rows = printed_headers(ROWS, rows)
    return {
        **printed_headers(replace(CHUNK, structs=STRUCTS, keys="call_keys.h", rows="call_rows.h"), chunks),
        "printed/dtype.h": of_rows["printed/dtype.h"],
        "printed/packs.h": printed_headers(ROWS, replace(rows, packs=packs, kinds=kinds))["printed/packs.h"],
    }


def test_the_printed_headers_beside_the_others_are_those_of_a_pattern(update_golden: bool) -> None:
    wanted = sample()
    for path, text in wanted.items() if update_golden else ():
        (KERNELS / path).write_text(text, encoding="utf-8")
    assert {
        f"printed/{path.name}": path.read_text(encoding="utf-8") for path in (KERNELS / "printed").iterdir()
    } == wanted


@pytest.mark.kernels
@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
def test_every_header_compiles_alone(tmp_path: Path) -> None:
    for n, header in enumerate(HEADERS):
        (tmp_path / f"{n}.cpp").write_text(f'#include "{header}"\n', encoding="utf-8")
    compiler = find_compiler()
    assert compiler is not None
    flags = ("-std=c++17", "-fsyntax-only", "-fopenmp", "-Wall", "-Wextra", "-Werror", "-Wno-psabi")
    sources = sorted(path.name for path in tmp_path.iterdir())
    done = subprocess.run(
        (*compiler.command, *flags, *sources), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def clang_format(*arguments: str, source: str = "") -> subprocess.CompletedProcess[str]:
    tool = shutil.which("clang-format", path=str(Path(sys.executable).parent)) or shutil.which("clang-format")
    assert tool is not None, "expected clang-format, which the extra `test` installs"
    command = (tool, f"--style=file:{ROOT / '.clang-format'}", *arguments)
    return subprocess.run(command, input=source, capture_output=True, text=True, check=False)


@pytest.mark.kernels
def test_every_header_is_formatted() -> None:
    done = clang_format("--dry-run", "--Werror", *map(str, HEADERS))
    assert done.returncode == 0, done.stderr


@cache
def sources(text: str, dtype: str = "float32") -> tuple[str, str, str, str]:
    of = compilation(text, dtype, 4)
    cached = "" if "documents" in text else emit_cpp_cached(*of.cached)
    paged = "" if {"documents", "input"} & set(text.split()) else emit_cpp_paged(*of.cached)
    return emit_cpp(of.forward), emit_cpp_backward(of.backward), cached, paged


@pytest.mark.parametrize(
    ("text", "dtype", "header"),
    [
        ("causal softcap 2 attend full", "float32", "modifiers/softcap.h"),
        ("causal alibi attend full", "float32", "modifiers/alibi.h"),
        ("causal learned_sink attend full", "float32", "modifiers/learned_sink.h"),
        ("causal input lean : weights key_bias lean attend full", "float32", "modifiers/key_bias.h"),
        ("causal softcap 2 learned_sink attend full", "float32", "modifiers/both.h"),
        ("causal block 16 attend random(2b, seed = 3)", "float32", "draws.h"),
        ("documents causal attend full", "float32", "documents/separate.h"),
        ("documents restart causal attend full", "float32", "documents/restart.h"),
        ("causal attend full", "bfloat16", "dtypes/bfloat16.h"),
        ("causal attend full", "float16", "dtypes/float16.h"),
    ],
)
def test_a_kernel_has_the_headers_of_its_pattern_alone(text: str, dtype: str, header: str) -> None:
    own = parsed_header((KERNELS / header).read_text(encoding="utf-8"), header).text
    assert all(own in source for source in sources(text, dtype) if source)
    assert not any(own in source for source in sources("causal attend full"))


@pytest.mark.kernels
@pytest.mark.parametrize("kind", range(4), ids=("forward", "backward", "cached", "paged"))
def test_a_kernel_is_formatted_but_for_long_expressions(kind: int) -> None:
    """Printed expressions stay in one line, whatever their length."""
    source = sources("causal block 16 softcap 2 alibi attend window(70) | random(2b, seed = 3)")[kind]
    done = clang_format("--assume-filename=kernel.cpp", source=source)
    assert done.returncode == 0, done.stderr
    lines, formatted = source.splitlines(), done.stdout.splitlines()
    for change, start, stop, *_ in SequenceMatcher(None, lines, formatted, autojunk=False).get_opcodes():
        long = start < stop and all(len(line) > 120 for line in lines[start:stop])
        assert change == "equal" or long, (lines[start:stop], formatted[start : start + 5])


def test_no_kernel_has_a_header_twice_or_a_directive_of_one() -> None:
    for source in sources("causal softcap 2 alibi attend full"):
        assert not re.search(r'#pragma once|#include "', source)
    forward, backward, *_ = sources("causal softcap 2 alibi attend full")
    assert forward.count("struct Unchanged {") == backward.count("struct Unchanged {") == 1


def test_no_two_headers_of_a_kernel_declare_one_name() -> None:
    """One pattern takes every form of input, so that all headers which can meet in a kernel do."""
    given = [declaration(n, *form) for n, form in enumerate(FORMS)]
    terms = (f"sink({decl.name})" if decl.kind is InputKind.LENGTH else decl.name for decl in given)
    text = f"causal block 16 {' '.join(map(input_statement, given))} attend {' | '.join(terms)}"
    of = compilation(text, "float32", 4)
    printed = [emit_cpp(of.forward), emit_cpp_backward(of.backward), emit_cpp_mass(of.backward)]
    sources = "".join((*printed, emit_cpp_cached(*of.cached), emit_cpp_paged(*of.cached)))
    _, *kernels = re.split(r"^namespace \w+ \{", sources, flags=re.M)
    assert len(kernels) == 7
    for kernel in kernels:
        declared = re.findall(r"^(?:struct|class) (\w+)\b[^;]*\{", kernel, re.M)
        assert len(declared) > 10
        assert not [name for name, times in Counter(declared).items() if times > 1]


def test_a_header_comes_after_those_that_it_includes() -> None:
    printed = {
        "a.h": '#pragma once\n#include <cmath>\n\n#include "in/b.h"\n#include "in/c.h"\n\nint a;\n',
        "in/b.h": '#pragma once\n#include "c.h"\n\nint b;\n',
        "in/c.h": "#pragma once\n#include <cstdint>\n\nint c;\n",
    }
    whole = joined_headers(("a.h", "in/c.h"), printed)
    assert whole.includes == ("cmath", "cstdint")
    assert whole.text == "int c;\n\nint b;\n\nint a;\n"


@pytest.mark.kernels
@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
@pytest.mark.parametrize("of", STRUCTS, ids=lambda of: of.name)
def test_a_struct_is_the_same_in_c_and_in_python(of: CallStruct) -> None:
    """Each field at its place, and what is packed as long as the struct."""
    structure = of.structure()
    places = [f"offsetof({of.name}, {field.name}) == {getattr(structure, field.name).offset}" for field in of.fields]
    places.append(f"sizeof({of.name}) == {of.packer().size}")
    checks = "".join(f'static_assert({place}, "");\n' for place in places)
    declared = "".join(
        dict.fromkeys(struct.declaration() for struct in (calls.LIST, calls.LOOKUP, calls.MARKS, calls.KEPT, of))
    )
    size = f'extern "C" int size() {{ return sizeof({of.name}); }}\n'
    library = ctypes.CDLL(
        str(compile_shared(f"#include <cstddef>\n#include <cstdint>\n{declared}{checks}{size}", optimise=0))
    )
    assert library.size() == ctypes.sizeof(structure) == of.packer().size


def test_what_is_packed_is_what_the_fields_hold() -> None:
    packed = calls.LIST.structure().from_buffer_copy(calls.LIST.packer().pack(5, 6, 7))
    assert (packed.entries, packed.first, packed.blocks) == (5, 6, 7)
