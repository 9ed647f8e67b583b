"""What a golden file leaves out stands in a known source, and what changes is shown."""

from __future__ import annotations

import re

import pytest
from differences import LEFT_OUT, difference, forms, laid_out, named, parts_of, restored

KNOWN = """// A kernel.
#include <cmath>

int half(int x) { return x / 2; }

// Rows of class 0.
void visit_class_0(int head) {
  int a = 1;
  int b = 2;
  int c = 3;

  int d = 4;
  int e = 5;
}
"""


def test_parts_are_definitions_with_their_comments() -> None:
    assert [part.splitlines()[0] for part in parts_of(KNOWN)] == [
        "// A kernel.",
        "int half(int x) { return x / 2; }",
        "// Rows of class 0.",
    ]
    assert "\n\n".join(parts_of(KNOWN)) == KNOWN.strip()


def test_a_known_source_leaves_nothing() -> None:
    assert difference(KNOWN, [KNOWN]) == "...\n"
    assert difference(KNOWN, []) == KNOWN


def test_a_part_that_is_new_is_whole_and_a_changed_one_shows_its_lines() -> None:
    changed = KNOWN.replace("visit_class_0", "visit_class_1").replace("int d", "int f") + "\nint more();\n"
    rows = "// Rows of class 0.\nvoid visit_class_1(int head) {\n  ...\n  int f = 4;\n  int e = 5;\n}"
    assert difference(changed, [KNOWN]) == f"...\n\n{rows}\n\nint more();\n"
    whole = changed[changed.index("// Rows") :]
    assert difference(changed, [KNOWN], whole=True) == f"...\n\n{whole}"


@pytest.mark.parametrize("lines", ["  int d = 4;\n", "  int e = 5;\n}\n", "// Rows of class 0.\n"])
def test_lines_that_are_gone_are_counted(lines: str) -> None:
    (found,) = re.findall(r"^ *\.\.\. -(\d+)$", difference(KNOWN.replace(lines, ""), [KNOWN]), re.MULTILINE)
    assert int(found) == lines.count("\n")


def test_terms_of_other_lines_are_no_difference() -> None:
    other = KNOWN.replace("// Rows of class 0.", "// line 4: causal")
    assert difference(other, [KNOWN.replace("// Rows of class 0.", "// line 12: full")]) == "...\n"


KERNELS = {
    "half.h": "int half(int x) { return x / 2; }",
    "rows.h": KNOWN[KNOWN.index("// Rows") :].strip(),
    "all.h": KNOWN[KNOWN.index("int half") :].strip(),
}


def test_what_kernels_hold_is_named_and_found_again() -> None:
    assert named(KNOWN, {name: KERNELS[name] for name in ("half.h", "rows.h")}) == (
        "// A kernel.\n#include <cmath>",
        "... half.h",
        "... rows.h",
    )
    parts = named(KNOWN, KERNELS)
    assert parts[1:] == ("... all.h",), "the longest"
    changed = KNOWN.replace("int d", "int f")
    assert named(changed, KERNELS)[1] == "... half.h" and "int f" in named(changed, KERNELS)[2]
    for text in (KNOWN, changed):
        assert restored(laid_out(named(text, KERNELS)), KERNELS) == parts_of(text)


def test_kernels_that_no_known_source_has_are_named() -> None:
    known = "// A kernel.\n#include <cmath>\n"
    assert difference(KNOWN, [known], KERNELS) == "...\n... all.h\n"
    assert difference(KNOWN, [KNOWN], KERNELS) == "...\n"


def test_a_line_of_each_form_is_left_and_the_digest_tells_all_apart() -> None:
    more = "void visit_class_7(int head) {\n  int c = 4;\n  int e = a + 1;\n  int e = a + 2;\n}\n"
    first, *lines = forms(more, [KNOWN], {}).splitlines()
    assert lines == [LEFT_OUT, "  int e = a + 1;", LEFT_OUT]
    assert first.startswith("... 5 lines, sha256 ")
    assert {forms(more.replace("= 4", f"= {n}"), [KNOWN], {}).splitlines()[0] for n in (5, 6)}.isdisjoint([first])
    assert forms(KNOWN, [KNOWN], KERNELS).splitlines()[1:] == ["..."]
