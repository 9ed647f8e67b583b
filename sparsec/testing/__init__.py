"""Public means of testing attention: hypothesis strategies. Importing it needs hypothesis and torch."""

from __future__ import annotations

from sparsec.testing.strategies import attention_inputs, document_bounds, patterns, shapes, sources
from sparsec.testing.text import sparse_text

__all__ = ["attention_inputs", "document_bounds", "patterns", "shapes", "sources", "sparse_text"]
