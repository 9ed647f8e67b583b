"""Gluon's kernels compiled ahead of time for sm_90 on a machine without a GPU: what the assembler says of them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import sparsec
from sparsec.backends.gluon.aot import compile_ahead
from sparsec.backends.gluon.emit import REGISTERS, emit_gluon, gluon_view
from sparsec.backends.triton.aot import KernelFindings, findings_of
from sparsec.cli.main import commands
from sparsec.pipeline import Compilation
from sparsec.plan.target import GLUON

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [pytest.mark.kernels, pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")]
S2 = "causal\nsoftcap 30\nalibi\nlearned_sink\nattend sink(64) | window(4b) | stride(8b, phase=h)"
INPUTS = "input kept : blocks\ninput below : length\ncausal\nattend sink(64) | kept | rows(.. below) & window(512)"
LISTED = "input listed : columns\ninput slash : slashes(tiles)\ncausal\nattend listed | slash"
BLOCKS = "causal\nattend window(64) | random(3b, seed=1)"


@pytest.mark.parametrize(
    ("text", "dims"),
    [
        *((S2, (128, 128)), (BLOCKS, (64, 64)), (INPUTS, (128, 128)), ("causal\nattend full", (128, 64))),
        (LISTED, (128, 128)),
    ],
)
def test_no_kernel_spills(text: str, dims: tuple[int, int]) -> None:
    pattern = sparsec.parse(f"pattern p {{\nblock 64\n{text}\n}}").pattern()
    plan = Compilation(pattern.lowered(8, 4), *dims, "bfloat16", GLUON).forward
    built = {kernel.name: kernel for kernel in compile_ahead(emit_gluon(plan), plan)}
    assert all(findings_of(kernel) == KernelFindings() for kernel in built.values())
    for schedule in gluon_view(plan).kernels:
        kernel = built[schedule.kernel.name]
        assert kernel.tensor_core and kernel.tma
        code = dict(kernel.files)[f"{kernel.name}.ptx"].decode()
        asked = {int(number) for number in re.findall(r"setmaxnreg\S+\s+(\d+)", code)}
        assert set(REGISTERS[schedule.groups, schedule.parts > 2]) <= asked
    if "listed" in text:
        copies, attends = (built[name].launch for name in ("copy_listed_0", "forward_0"))
        assert copies is not None and attends is not None
        assert copies.programs == "batch * ((columns + 63) / 64) * 8" and copies.constants == {"VECTOR": 8}
        listed = "listed_keys_0", "listed_values_0"
        assert [each.argument for each in attends.descriptors] == ["queries", "keys", "values", *listed]
        assert set(listed) <= {each.name for each in copies.arguments}


def test_a_folder_has_kernels_for_what_is_not_sure(tmp_path: Path) -> None:
    file, folder = tmp_path / "p.sparse", tmp_path / "built"
    file.write_text("pattern p { heads 4 kv 2  causal  attend window(64) | sink(4) }")
    command = ["compile", str(file), "-o", str(folder), "--target", GLUON, "--head-dim", "64", "--dtype", "bfloat16"]
    done = CliRunner().invoke(commands, command)
    assert done.exit_code == 0, done.output
    kernels = {each["name"]: each for each in json.loads((folder / "manifest.json").read_text())["kernels"]}
    assert {"forward_0", "again.forward_0", "row_sums", "grad_queries_0", "grad_keys_0", "decode_0"} <= set(kernels)
    ours, again = (kernels[name]["launch"] for name in ("forward_0", "again.forward_0"))
    assert ours["programs"] == again["programs"] and ours["threads"] > again["threads"]
    assert all("unsure" in [each["name"] for each in of["arguments"]] for of in (ours, again))
    assert [each["argument"] for each in ours["descriptors"]] == ["queries", "keys", "values"]
    loaded = sparsec.load_compiled(folder)
    assert loaded.target == "gluon"
