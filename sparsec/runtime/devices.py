"""What a caller names as a device -> a device of this machine.

Invariant: it holds data; `meta` does not.
"""

from __future__ import annotations

import torch

from sparsec.diagnostics.model import CallError


def device_of(given: torch.device | str | int) -> torch.device:
    """Raises CallError for what this machine lacks."""
    try:
        found = torch.empty(0, device=given).device
    except (RuntimeError, AssertionError, TypeError):  # the second: torch was built without that kind
        found = None
    if found is None or found.type == "meta":
        raise CallError(f"expected a device of this machine, such as cpu or cuda:0, got {given!r:.80}")
    return found
