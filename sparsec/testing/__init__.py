"""Public means of testing attention: strategies, and a check of any callable. Needs hypothesis and torch."""

from __future__ import annotations

from sparsec.testing.check import check_attention
from sparsec.testing.strategies import attention_inputs, document_bounds, patterns, shapes, sources
from sparsec.testing.text import sparse_text

__all__ = ["attention_inputs", "check_attention", "document_bounds", "patterns", "shapes", "sources", "sparse_text"]
