"""What a notebook shows of a compiled module: what it was made for, and the pairs that it computes.

Invariant: nothing raises for a reader who looks at a module.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from sparsec.pictures.drawing import Drawing, picture_view
from sparsec.pictures.notebook import SEQ_LEN, quiet

if TYPE_CHECKING:
    from sparsec.runtime.module import SparseAttention


def module_html(module: SparseAttention) -> str:
    """One line, and the image of the pattern at SEQ_LEN tokens."""
    said = (
        f"{type(module).__name__}: {module.heads} heads on {module.kv_heads} KV heads, head dim {module.head_dim}, "
        f"{module.dtype}, target {module.target}"
    )
    image = quiet(lambda: Drawing("pattern", module.lowered, picture_view(SEQ_LEN)).svg(), "")
    return f"<p>{escape(said)}</p>\n{image}"
