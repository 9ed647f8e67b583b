"""Public means of testing attention, one's own or sparsec's. What draws needs hypothesis: the extra `testing`.

`for_patterns` makes a pytest test of a function that returns a callable: it is checked for every pattern of a file, or
for patterns that a strategy draws. `check_attention` does so for one pattern, anywhere. `patterns`, `sources`,
`shapes`, `attention_inputs` and `document_bounds` are strategies to write properties with; `sparse_text` prints a
pattern.

    @for_patterns("model.sparse", heads=8, kv_heads=2, head_dim=64)
    def test_my_kernel(pattern):
        return lambda q, k, v, *, return_lse: my_kernel(q, k, v, window=512)  # -> (out, LSE)

`sparsec.testing.verify` holds a compiled pattern to its properties, as `sparsec verify` does; `pytest --sparse`
collects `.sparse` files for it, a test for each property of each pattern.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsec.sema.printer import sparse_text
    from sparsec.testing.check import check_attention
    from sparsec.testing.pattern_tests import for_patterns
    from sparsec.testing.strategies import attention_inputs, document_bounds, patterns, shapes, sources

__all__ = [
    "attention_inputs",
    "check_attention",
    "document_bounds",
    "for_patterns",
    "patterns",
    "shapes",
    "sources",
    "sparse_text",
]

_HOME = {
    "check_attention": "sparsec.testing.check",
    "for_patterns": "sparsec.testing.pattern_tests",
    "sparse_text": "sparsec.sema.printer",
}


def __getattr__(name: str) -> Any:
    """On first use: pytest loads the plugin of this package, which must cost nothing and need no hypothesis."""
    if name not in __all__:
        raise AttributeError(f"module 'sparsec.testing' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOME.get(name, "sparsec.testing.strategies")), name)
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        message = "sparsec.testing needs hypothesis: pip install 'sparsec[testing]'"
        raise ModuleNotFoundError(message, name="hypothesis") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
