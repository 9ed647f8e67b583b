"""How much kernels may spill, by the Triton that is installed: the tiles are chosen for none under 3.9.

Others order instructions otherwise, and spill some where a kernel has few registers to spare.
"""

from __future__ import annotations

import triton

from sparsec.backends.triton.aot import KernelArtefact, findings_of

CHOSEN_FOR = triton.__version__.startswith("3.9.")
MOST = 0 if CHOSEN_FOR else 128
"""Bytes a thread. 3.6 to 3.8 stay below."""


def assert_fit(artefact: KernelArtefact) -> None:
    """A kernel that is fit to run, and spills at most MOST bytes."""
    found = findings_of(artefact)
    assert found.problems == ()
    assert max(artefact.spill_bytes, artefact.stack_bytes) <= MOST, found.warnings
    assert len(found.warnings) == (artefact.spill_bytes + artefact.stack_bytes > 0)
