"""Models that `from_pretrained` loads -> a warning, once, where one names a pattern and runs without it; or the model
with its pattern, where a program asks for that by importing `sparsec.integrations.transformers.auto`.

Invariant: `from_pretrained` loads and gives what it does without sparsec; a model that names no pattern is left alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from sparsec.diagnostics.model import CallError
from sparsec.integrations.transformers.attention import IMPLEMENTATION
from sparsec.integrations.transformers.fit import decoder_of


def after_loading(then: Callable[[Any], object]) -> None:
    """Has `then` called with each model that `from_pretrained` loads and whose config names a pattern; what was to be
    called so far is not."""
    current: Any = PreTrainedModel.from_pretrained.__func__
    original = getattr(current, "sparsec_original", current)

    @wraps(original)
    def from_pretrained(cls: type[Any], *args: Any, **kwargs: Any) -> Any:
        loaded = original(cls, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if named_pattern(model) is not None:
            then(model)
        return loaded

    from_pretrained.sparsec_original = original  # type: ignore[attr-defined]  # a function takes any attribute
    PreTrainedModel.from_pretrained = classmethod(from_pretrained)


def named_pattern(model: Any) -> dict[str, Any] | None:
    """What `apply` wrote into the model's config."""
    found = getattr(getattr(model, "config", None), "sparsec", None)
    return found if isinstance(found, dict) else None


def watch(model: nn.Module) -> None:
    """Warns at the first forward of a model that names a pattern, unless it has been applied by then: at that of its
    decoder, which calls reach that go around the model's own `__call__`."""
    try:
        inner = decoder_of(model)
    except CallError:
        inner = model
    hook = _FirstForward(model.config, type(model).__name__)
    hook.handle = inner.register_forward_pre_hook(hook)


@dataclass(slots=True)
class _FirstForward:
    """Before a forward: says once that the model attends without its pattern. config, kind: of the whole model."""

    config: Any
    kind: str
    handle: RemovableHandle | None = None

    def __call__(self, inner: nn.Module, args: tuple[Any, ...]) -> None:
        applied = any("_sparsec" in vars(each) for each in inner.modules())
        if self.handle is None or (not applied and _tried(inner)):
            return
        self.handle.remove()
        self.handle = None
        saved = getattr(self.config, "sparsec", None)
        if isinstance(saved, dict) and not applied:
            warnings.warn(
                f"the config of this {self.kind} names a pattern ({saved.get('filename')}), and it runs "
                "without: call sparsec.integrations.transformers.restore(model), or import "
                "sparsec.integrations.transformers.auto before it is loaded",
                UserWarning,
                stacklevel=2,
            )


def _tried(model: nn.Module) -> bool:
    """Whether `apply` is looking at what the model asks."""
    configs = (getattr(each, "config", None) for each in model.modules())
    return any(getattr(config, "_attn_implementation", None) == IMPLEMENTATION for config in configs)
