"""The meaning of a file: `check` finds its problems, `instantiate` gives a pattern's terms head by head."""

from sparsec.sema.among import among_marked
from sparsec.sema.checked import CheckedFile, CheckedModel, CheckedPattern
from sparsec.sema.driver import (
    Binding,
    Resolved,
    bind,
    check,
    check_damaged,
    declared_counts,
    file_values,
    instantiate,
    layers,
    resolve,
    settled_heads,
)

__all__ = [
    "Binding",
    "CheckedFile",
    "CheckedModel",
    "CheckedPattern",
    "Resolved",
    "among_marked",
    "bind",
    "check",
    "check_damaged",
    "declared_counts",
    "file_values",
    "instantiate",
    "layers",
    "resolve",
    "settled_heads",
]
