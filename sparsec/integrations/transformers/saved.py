"""A folder that `save_pretrained` wrote, and a text -> the model, its tokenizer, and the ids of the text.

Invariant: nothing comes from anywhere but the folder, and no code in it is run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from sparsec.diagnostics.model import CallError
from sparsec.runtime.devices import default_device, device_of

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Saved:
    model: PreTrainedModel
    tokenizer: Any

    def ids(self, text: str) -> Tensor:
        """[1, N]. Raises CallError for a text without tokens."""
        numbers = self.tokenizer(text)["input_ids"]
        if not numbers:
            raise CallError("expected a prompt with tokens, got an empty one")
        return torch.tensor([numbers], dtype=torch.int64)


def load_saved(folder: Path, device: str | None) -> Saved:
    """In eval mode, of the dtype that it was saved with; `device`: the GPU if left out and there is one.

    Raises CallError for a folder without a causal LM and its tokenizer, and for no such device.
    """
    where = default_device(None) if device is None else device_of(device)
    model = _loaded(folder, "a causal LM", AutoModelForCausalLM.from_pretrained, dtype="auto")
    tokenizer = _loaded(folder, "a tokenizer", AutoTokenizer.from_pretrained)
    return Saved(model.to(where).eval(), tokenizer)


def _loaded(folder: Path, what: str, load: Callable[..., _T], **options: Any) -> _T:
    try:
        return load(folder, local_files_only=True, **options)
    except Exception as error:  # transformers and what it reads files with raise any
        why = f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
        raise CallError(f"expected {what} that save_pretrained wrote in {folder}, got {why}") from error
