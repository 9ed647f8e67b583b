"""sparsec/STAGES.md: one pattern through every stage, each block what the command above it prints.

`--update-golden` writes the page. Invariant: a block is the output of its command, whole but for sources, of which it
has what the source of dense causal attention lacks.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from textwrap import fill

import pytest
from click.testing import CliRunner
from differences import difference

from sparsec.cli.main import commands

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "sparsec" / "STAGES.md"
OPTIONS = "--heads 4 --kv-heads 4"
S2 = f"examples/s2.sparse --pattern s2 {OPTIONS} --set local=4b --set every=4b"
DENSE = f"examples/dense.sparse {OPTIONS}"
STAGES = (
    (
        "Terms",
        "The file is parsed, checked and resolved: parameters and head counts are numbers, and each head has its own "
        "set. The same text, parsed, gives the same sets. The comment names the lines of the file.",
        "--emit terms",
    ),
    (
        "Bands",
        "A set is a union of bands: bounds on the key j as steps in the query i, and residues. Heads whose bands are "
        "equal up to numbers share a class; a number that differs is a head constant, with its range. Here `b` is 64 "
        "keys, so both bands count in blocks of 64.",
        "--emit bands",
    ),
    (
        "Bands, transposed",
        "For the gradients of keys and values: which queries see key j.",
        "--emit bands --of backward",
    ),
    (
        "Tile programs",
        "Which tiles of keys one tile of queries visits, for its rows i0 to i1 and nk keys: loops over full tiles, "
        "then over masked ones, in which `live` is tested pair by pair. No tile comes twice. `/` and `rem` are `//` "
        "and `%` of what is never negative.",
        "--emit tiles",
    ),
    (
        "The plan",
        "All that a kernel is printed from: sizes, dtype, score, and the classes with their constants.",
        "--emit plan",
    ),
    (
        "The layout of a KV cache",
        "From the bands of a KV group's heads: which keys a later query may still need, and in which slot each lies. "
        "Regions come longest-lived first; `base` and `capacity` of a region depend on the greatest length. `kept` is "
        "where a new key is written when the sequence is about to have `stop` tokens.",
        "--emit layout",
    ),
    ("C++", "What the kernel of `examples/dense.sparse` lacks; `...` stands for the rest.", "--emit cpp"),
    ("Triton", "The same for a GPU, here `cuda:90`.", "--emit triton"),
)


def printed(command: str) -> str:
    result = CliRunner().invoke(commands, ["lower", *shlex.split(command)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def block(emit: str) -> str:
    text = printed(f"{S2} {emit}")
    if emit in ("--emit cpp", "--emit triton"):
        text = difference(text, [printed(f"{DENSE} {emit}")])
    return f"```{'cpp' if emit == '--emit cpp' else 'python' if emit == '--emit triton' else ''}\n{text}```"


def page() -> str:
    parts = [
        "# s2 through every stage",
        "`sparsec lower` prints what a stage of the compiler makes of a pattern. Here is the S2 pattern of "
        "[examples/s2.sparse](../examples/s2.sparse), four heads, with four near blocks and one distant in four:",
        f"```sh\nsparsec lower {S2} --emit STAGE\n```",
        "These four heads are of one class; of more, `--head` shows the class of one. `--of backward` and "
        "`--of cached` print the gradients and attention over a KV cache, `--target` the sizes for another machine. "
        "[pipeline.py](pipeline.py) has the stages in order, [ir/README.md](ir/README.md) explains bands and tiles.",
    ]
    for title, said, emit in STAGES:
        parts += [f"## {title}", f"`{emit}`: {said[0].lower()}{said[1:]}", block(emit)]
    return (
        "\n\n".join(part if part.startswith("```") else fill(part, 120, break_on_hyphens=False) for part in parts)
        + "\n"
    )


def test_the_page_of_stages(monkeypatch: pytest.MonkeyPatch, update_golden: bool) -> None:
    monkeypatch.chdir(ROOT)
    text = page()
    if update_golden:
        PAGE.write_text(text, encoding="utf-8")
    assert text == PAGE.read_text(encoding="utf-8"), "sparsec/STAGES.md differs: --update-golden, and read the change"


def test_the_page_can_be_read() -> None:
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) < 300
