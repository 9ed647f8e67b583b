"""How much kernels may spill.

Tiles are chosen for forward kernels that spill nothing under Triton 3.9. Other releases order instructions otherwise,
and the gradients have few registers to spare: what a kernel keeps for its second pass over tiles may then be spilled.
"""

from __future__ import annotations

import triton

from sparsec.backends.triton.aot import KernelArtefact, findings_of

CHOSEN_FOR = triton.__version__.startswith("3.9.")
MOST = 128
"""Bytes a thread."""
MOST_FORWARD = 0 if CHOSEN_FOR else MOST
"""The same, of forward kernels of full passes."""


def assert_fit(artefact: KernelArtefact) -> None:
    """A kernel that is fit to run, and spills no more than it may."""
    found = findings_of(artefact)
    assert found.problems == ()
    most = MOST_FORWARD if artefact.name.startswith("forward_") else MOST
    assert max(artefact.spill_bytes, artefact.stack_bytes) <= most, found.warnings
    assert len(found.warnings) == (artefact.spill_bytes + artefact.stack_bytes > 0)
