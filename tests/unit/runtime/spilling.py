"""How much kernels may spill: nothing, but for gradients of keys and values at head dimension 128 and above.

Those hold two sums of a key tile's size; what they spill lies outside their loops. Other releases of Triton order
instructions otherwise.
"""

from __future__ import annotations

import triton
from uniform_registers import lost_descriptors

from sparsec.backends.triton.aot import KernelArtefact, findings_of

LATEST = triton.__version__.startswith("3.9.")
MOST = 160
"""Bytes a thread, under any release."""
OF_KEYS = 32 if LATEST else 128
"""The same, of gradients of keys and values of 128 columns, in bfloat16."""
OF_PARTS = 48 if LATEST else 128
"""The same, where programs share a key tile's queries: what says which are theirs is in registers of its own."""
NONE_OR_FEW = 0 if triton.__version__.startswith(("3.6.", "3.9.")) else 16
"""The same, of all others; between those releases a few kernels miss by some bytes."""
OF_DECODING = 16
"""The same, of kernels of decoding: their tiles are a sweep's, of a pattern without modifiers."""
OTHERS = 0 if LATEST else MOST
"""The same, of forward kernels of values of another width than keys."""


def assert_fit(artefact: KernelArtefact, most: int = NONE_OR_FEW) -> None:
    """A kernel that is fit to run, and spills at most so many bytes a thread."""
    found = findings_of(artefact)
    assert found.problems == ()
    if artefact.target == "cuda:90" and artefact.tensor_core:
        assert lost_descriptors(artefact) == []
    assert max(artefact.spill_bytes, artefact.stack_bytes) <= most, found.warnings
    assert len(found.warnings) == (artefact.spill_bytes + artefact.stack_bytes > 0)
