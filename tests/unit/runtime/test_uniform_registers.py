"""Tiles are read at the addresses that a kernel gave: what an assembler that loses them gives is found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import triton
from uniform_registers import lost_descriptors, lost_in

import sparsec
from sparsec.backends.triton import aot, assembler
from sparsec.backends.triton.assembler import SOUND, assembling
from sparsec.backends.triton.emit import emit_triton
from sparsec.pipeline import Compilation

LOOP = """
.text.forward_0:
        /*0000*/                   UMOV UR16, 0x7 ;
        /*0010*/                   ULEA UR17, UR8, UR9, 0x3 ;
.L_x_0:
        /*0020*/                   USHF.R.U32.HI UR26, URZ, 0x4, UR8 ;
        /*0030*/                   USGXT.U32 UR26, UR26, 0xe ;
        /*0040*/                   {before}
        /*0050*/                   UIADD3 UR8, UP1, UR16, 0x20, URZ ;
        /*0060*/                   UIADD3.X UR9, UR17, -0x3ffffff0, URZ, UP1, !UPT ;
        /*0070*/                   UMOV UR10, UR8 ;
        /*0080*/                   UMOV UR11, UR9 ;
        /*0090*/                   HGMMA.64x16x16.F32.BF16 R56, R24, gdesc[UR8].tnspB, R56, gsb0 ;
        /*00a0*/                   {after}
        /*00b0*/                   UMOV UR17, URZ ;
        /*00c0*/              @!P2 BRA `(.L_x_0) ;
        /*00d0*/                   EXIT ;
"""
TOKENS = "pattern p { causal  attend window(100) | stride(7, phase=3) }"
SOFTCAP = "pattern p { causal  attend sink(10) | window(300)  softcap 30  alibi  learned_sink }"


def test_an_address_that_the_first_pass_over_a_loop_does_not_have_is_found() -> None:
    right = LOOP.format(before="UMOV UR16, UR26 ;", after="NOP ;").replace("ULEA UR17, UR8, UR9, 0x3", "UMOV UR17, URZ")
    assert lost_in(right) == []
    found = lost_in(LOOP.format(before="NOP ;", after="UMOV UR16, UR26 ;"))
    assert [text.partition(":")[0] for text in found] == ["0x90"]
    assert "UR11 may be 3221225488, other" in found[0]


def test_a_layout_that_one_path_alone_sets_is_found() -> None:
    right = LOOP.format(before="UMOV UR16, UR26 ;", after="NOP ;").replace("ULEA UR17, UR8, UR9, 0x3", "UMOV UR17, URZ")
    guarded = right.replace("                   UMOV UR11, UR9", "              @P3 UMOV UR11, UR9")
    assert any("unset" in text for text in lost_in(guarded))


@pytest.fixture
def listing_of() -> Callable[[str], list[str]]:
    def lost(text: str) -> list[str]:
        plan = Compilation(sparsec.parse(text).pattern().lowered(8, 2), 64, 64, "bfloat16", "cuda:90").forward
        (artefact,) = aot.compile_ahead(emit_triton(plan), plan, "cuda:90")
        return lost_descriptors(artefact)

    return lost


@pytest.mark.kernels
@pytest.mark.parametrize("text", [TOKENS, SOFTCAP], ids=["tokens", "softcap"])
def test_kernels_lose_none(text: str, listing_of: Callable[[str], list[str]]) -> None:
    assert listing_of(text) == []


@pytest.mark.kernels
@pytest.mark.skipif(not assembler._too_old(), reason="Triton's own assembler is sound")
def test_an_assembler_that_is_too_old_is_found(
    listing_of: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(aot, "assembling", nullcontext)
    monkeypatch.setattr("sparsec.plan.target.PICKS", {})  # with the rules' tiles it errs
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))  # Triton asks for its assembler's release once a process
    assert listing_of(SOFTCAP)


@pytest.mark.kernels
def test_the_assembler_is_late_enough_while_kernels_are_built() -> None:
    knobs = triton.knobs.nvidia
    before = knobs.ptxas.path
    with assembling():
        assert tuple(map(int, knobs.ptxas.version.split("."))) >= SOUND
    assert knobs.ptxas.path == before


@pytest.mark.kernels
def test_an_old_one_is_left_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are those of before afterwards, an error among what runs or not."""
    knobs = triton.knobs.nvidia
    before, other = knobs.ptxas.path, knobs.ptxas_blackwell.path
    monkeypatch.setattr(assembler, "_too_old", lambda: True)
    with pytest.raises(ZeroDivisionError), assembling():
        assert knobs.ptxas.path == other
        raise ZeroDivisionError
    assert knobs.ptxas.path == before
