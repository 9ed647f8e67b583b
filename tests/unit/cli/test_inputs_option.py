"""`--inputs`: random contents and files of tensors; bad ones end in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click import BadParameter
from invoking import invoke

from sparsec.cli.inputs import read_sources

SIZES = ("--heads", "4", "--kv-heads", "2", "--seq-len", "200")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "p.sparse"
    path.write_text("pattern p { block 16  input picks : rows  causal  attend picks | sink(1) }")
    return path


def show(file: Path, *inputs: str, exit_code: int = 0) -> str:
    given = [word for each in inputs for word in ("--inputs", each)]
    result = invoke("show", file, *SIZES, *given)
    assert result.exit_code == exit_code, result.output
    return result.stdout if exit_code == 0 else result.stderr


def test_random_contents_are_named_in_the_title(file: Path) -> None:
    assert "200 keys, inputs random:density=0.05,seed=0\n" in show(file)
    found = show(file, "picks=random:count=9,seed=3")
    assert "inputs picks=random:count=9,seed=3\n" in found and "heads 0-1" in found
    assert found != show(file, "picks=random:count=9,seed=4")


def test_files(file: Path) -> None:
    rows = torch.zeros(1, 1, 200, 1, dtype=torch.int32)
    torch.save(rows, tensor := file.with_name("a.pt"))
    torch.save({"picks": rows}, everything := file.with_name("b.pt"))
    np.save(array := file.with_name("c.npy"), rows.numpy())
    live = {show(file, given).split("live: ")[1] for given in (f"picks={tensor}", str(everything), f"picks={array}")}
    assert live == {"0.995% of the causal pairs\n"}


def test_files_that_do_not_fit(file: Path) -> None:
    bad = file.with_name("bad.pt")
    bad.write_bytes(b"no tensor")
    assert "to hold tensors alone, got: " in show(file, f"picks={bad}", exit_code=2)
    torch.save([1, 2], bad)
    assert "to hold a tensor or a pair of tensors, got list" in show(file, f"picks={bad}", exit_code=2)
    assert "to hold a dict of tensors by the inputs' names, got list" in show(file, str(bad), exit_code=2)
    torch.save(torch.zeros(1, device="meta"), bad)
    assert "to hold tensors with their numbers, got one on meta" in show(file, f"picks={bad}", exit_code=2)
    torch.save({"pick": torch.zeros(1)}, bad)
    assert "got one called 'pick': did you mean 'picks'?" in show(file, str(bad), exit_code=2)
    torch.save(torch.zeros(1, 1, 100, 1, dtype=torch.int64), bad)
    assert "where B is" not in (said := show(file, f"picks={bad}", exit_code=2))
    assert "Nq is 200; got int64 [1, 1, 100, 1]" in said
    torch.save(torch.zeros(1, 1, 200, 2, dtype=torch.int64), bad)
    assert "to be distinct, got 0 at [0, 0, 0, 0]" in show(file, f"picks={bad}", exit_code=2)


def test_names_that_the_pattern_lacks(file: Path, good: Path) -> None:
    assert "expected --inputs of the names picks, got 'pick'" in show(file, "pick=random", exit_code=2)
    for command in ("show", "run", "bench"):
        result = invoke(command, good, "--inputs", "random")
        assert result.exit_code == 2 and "since the pattern declares no input" in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        "",
        "picks",
        "picks=",
        "=random",
        "random:density=2",
        "random:density=nan",
        "random:density",
        "random:count=-1",
        "random:count=1.5",
        "random:seed=x",
        "random:colour=1",
        "random:seed=1,seed=2",
        "random:density=0.5,count=2",
        "picks=nowhere.pt",
        "picks=file.txt",
        "file.npy",
        "1x=random",
    ],
)
def test_what_is_no_content(text: str) -> None:
    with pytest.raises(BadParameter, match="expected"):
        read_sources((text,))


def test_contents_given_twice() -> None:
    with pytest.raises(BadParameter, match="'a' twice"):
        read_sources(("a=random", "a=random"))
    with pytest.raises(BadParameter, match="once"):
        read_sources(("random", "random:seed=1"))
