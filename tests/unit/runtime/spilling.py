"""How much kernels may spill.

Tiles are chosen for none under Triton 3.9; other releases order instructions otherwise. Gradients and decoding have few
registers to spare, and with the code of a second pass over the tiles some spill on some targets.
"""

from __future__ import annotations

import triton

from sparsec.backends.triton.aot import KernelArtefact, findings_of

MOST = 160
"""Bytes a thread, under any release."""
SCARCE = 96 if triton.__version__.startswith("3.9.") else MOST
"""The same, of gradients and of decoding."""
NONE_OR_FEW = 0 if triton.__version__.startswith(("3.6.", "3.9.")) else 16
"""The same, of the forward kernels of patterns with inputs."""
OTHERS = 0 if triton.__version__.startswith("3.9.") else MOST


def assert_fit(artefact: KernelArtefact) -> None:
    """A kernel that is fit to run, and spills no more than it may."""
    found = findings_of(artefact)
    assert found.problems == ()
    most = SCARCE if artefact.name.startswith(("grad_", "decode_")) else OTHERS
    assert max(artefact.spill_bytes, artefact.stack_bytes) <= most, found.warnings
    assert len(found.warnings) == (artefact.spill_bytes + artefact.stack_bytes > 0)
