"""sparsec: attention patterns written in a small language, compiled to kernels.

Importing this package imports neither torch nor Triton; `compile` and the other names that need them load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparsec.diagnostics.model import CallError, DiagnosticError, SparsecError
from sparsec.program import Model, Pattern, Program, load, parse

if TYPE_CHECKING:
    from sparsec import distributed, nn, testing
    from sparsec.runtime.build.artefact import load_compiled
    from sparsec.runtime.compile import compile
    from sparsec.runtime.module import SparseAttention

__version__ = "0.1.0"

__all__ = [
    "CallError",
    "DiagnosticError",
    "Model",
    "Pattern",
    "Program",
    "SparseAttention",
    "SparsecError",
    "__version__",
    "compile",
    "distributed",
    "load",
    "load_compiled",
    "nn",
    "parse",
    "testing",
]

_LAZY = {
    "compile": "sparsec.runtime.compile",
    "SparseAttention": "sparsec.runtime.module",
    "load_compiled": "sparsec.runtime.build.artefact",
}


def __getattr__(name: str) -> Any:
    if name in ("distributed", "nn", "testing"):
        return import_module(f"sparsec.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'sparsec' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
