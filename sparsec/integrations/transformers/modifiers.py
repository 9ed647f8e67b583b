"""What a model of transformers says of its scores, held against the score of a pattern: the soft cap and the sinks.

Invariant: a model that caps its scores, or that has sinks, gets no pattern without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from sparsec.diagnostics.model import CallError
from sparsec.sema.model import Score
from sparsec.sema.modifiers import Softcap


def check_own_score(score: Score, name: str, config: Any, module: nn.Module) -> None:
    """Refuses pattern `name` for an attention module whose scores are others. Raises CallError."""
    softcap, own = getattr(config, "attn_logit_softcapping", None), _softcap(score)
    if softcap is not None and softcap != own:
        raise CallError(f"expected pattern {name!r} with the model's `softcap {softcap:g}`, got {own}")
    sinks = getattr(module, "sinks", None)
    if (sinks is not None) != score.learned:
        has = "with learned_sink, for the model has sinks" if sinks is not None else "without learned_sink"
        raise CallError(f"expected pattern {name!r} {has}; got one {'with' if score.learned else 'without'} it")


def check_options(score: Score, options: Mapping[str, Any]) -> None:
    """Refuses the options of a call that ask for other scores. Raises CallError."""
    if options.get("softcap") is not None and options["softcap"] != _softcap(score):
        raise CallError(f"expected a pattern with the model's softcap {options['softcap']}, got {_softcap(score)}")
    if options.get("s_aux") is not None and not score.learned:
        raise CallError("expected a pattern with learned_sink for a model with sinks, got one without")


def _softcap(score: Score) -> float | None:
    softcap = score.get(Softcap)
    return None if softcap is None else softcap.x
