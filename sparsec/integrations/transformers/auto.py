"""Imported for what it does: from then on `from_pretrained` applies the pattern that a model's config names.

    import sparsec.integrations.transformers.auto
    model = AutoModelForCausalLM.from_pretrained("out")      # attends by the pattern that it was saved with

A pattern that does not fit the model raises there, as `restore` does. Invariant: nothing but loading changes.
"""

from __future__ import annotations

from sparsec.integrations.transformers.loading import after_loading
from sparsec.integrations.transformers.patch import restore

after_loading(restore)
