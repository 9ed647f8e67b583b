"""Hugging Face language models, and encoders, with a pattern in place of their attention.

    import sparsec
    from sparsec.integrations.transformers import apply, restore

    model = AutoModelForCausalLM.from_pretrained("...")
    apply(model, sparsec.load("examples/longgen.sparse"))      # train, evaluate, generate() as before
    model.save_pretrained("out")                               # the pattern goes into config.json
    model = restore(AutoModelForCausalLM.from_pretrained("out"))

`generate()` then keeps only the keys that the pattern can still need; `new_cache` makes such a cache by hand.
`generate_batch` gives the blocks of such keys alone to its requests, with transformers 5.23 or later. `profile`
makes a program of a model and a prompt: of each KV group the cheapest policy that recovers enough of its attention.
`compress` lets a score choose which keys of a prompt stay in the cache when it ends. `describe` and `explain` say what
the layers attend by, and what that costs.
A model that `from_pretrained` loads, and that names a pattern, warns once if it runs without it. Where a program
imports `sparsec.integrations.transformers.auto`, `from_pretrained` applies the pattern itself.
Invariant: what a model or a call asks for and the pattern cannot give is a CallError, and never left out in silence.
"""

from __future__ import annotations

from sparsec.integrations.transformers.budgets import adaptive
from sparsec.integrations.transformers.cache import SparseCache
from sparsec.integrations.transformers.described import describe, explain
from sparsec.integrations.transformers.loading import after_loading, watch
from sparsec.integrations.transformers.patch import apply, compress, new_cache, remove, restore
from sparsec.integrations.transformers.profiling import profile, profile_streaming
from sparsec.integrations.transformers.prompts import Prompt

__all__ = [
    "Prompt",
    "SparseCache",
    "adaptive",
    "apply",
    "compress",
    "describe",
    "explain",
    "new_cache",
    "profile",
    "profile_streaming",
    "remove",
    "restore",
]

after_loading(watch)
