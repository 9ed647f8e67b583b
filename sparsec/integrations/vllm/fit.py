"""What vLLM, and a model's layers, ask of their attention -> nothing, or a CallError for what a pattern does not give.

Invariant: what a layer does beside soft-max over causal pairs is in its pattern, or refused by name. vLLM is not
imported: its configs and layers are read by their attributes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparsec.diagnostics.model import CallError
from sparsec.program import Pattern
from sparsec.sema.model import Score
from sparsec.sema.modifiers import Alibi, Softcap

DECODER = "decoder"
PLAIN = ("auto", "float16", "bfloat16")
"""The types of keys and values that are not quantised."""
_CONFIG = {
    "speculative_config": "speculative decoding (--speculative-config)",
    "kv_transfer_config": "transfer of keys and values to another server (--kv-transfer-config)",
}
_WIDTHS = {
    "decode_context_parallel_size": "--decode-context-parallel-size",
    "prefill_context_parallel_size": "--prefill-context-parallel-size",
}


def check_config(config: Any) -> None:
    """Refuses what vLLM was started with. config: a VllmConfig. Raises CallError."""
    for name, what in _CONFIG.items():
        if getattr(config, name, None) is not None:
            raise CallError(f"expected vLLM without {what} for a model with a pattern, got it")
    for name, option in _WIDTHS.items():
        if getattr(config.parallel_config, name, 1) != 1:
            got = getattr(config.parallel_config, name)
            raise CallError(f"expected {option} of 1 for a model with a pattern, got {got}")
    if config.model_config.use_mla:
        raise CallError("expected a model whose layers hold keys and values of each KV head, got latent ones (MLA)")
    if config.cache_config.kv_sharing_fast_prefill:
        raise CallError("expected no --kv-sharing-fast-prefill for a model with a pattern, got it")


@dataclass(frozen=True, slots=True)
class LayerAsks:
    """What a layer of vLLM gives its attention at the start; `others`: by name, what sparsec does not know."""

    scale: float
    softcap: float | None
    alibi: tuple[float, ...] | None
    sinks: bool
    window: int | None
    kv_cache_dtype: str
    kind: str
    shares: str | None
    others: Mapping[str, Any]

    def check(self) -> None:
        """Refuses what no pattern gives. Raises CallError."""
        if self.window is not None:
            raise CallError(
                f"expected a layer without a sliding window of its own, got one of {self.window} tokens; where the "
                "pattern is to stand for it, switch it off: --hf-overrides '{\"sliding_window\": null}'"
            )
        if self.kind != DECODER:
            raise CallError(f"expected layers of a decoder, got one of kind {str(self.kind)!r}")
        if self.shares is not None:
            raise CallError(f"expected layers with keys and values of their own, got one with those of {self.shares}")
        if self.kv_cache_dtype not in PLAIN:
            raise CallError(f"expected --kv-cache-dtype among {', '.join(PLAIN)}, got {self.kv_cache_dtype}")
        for name, value in self.others.items():
            if value is not None and value is not False:
                raise CallError(f"expected attention without {name}, got {value!r:.80}")

    def check_score(self, pattern: Pattern, score: Score, heads: int) -> None:
        """Refuses a pattern whose score is not the layer's. heads: of the layer, on this rank; `score` is for these.

        Raises CallError.
        """
        name, cap = pattern.name, score.get(Softcap)
        if score.scale is not None and not math.isclose(score.scale, self.scale, rel_tol=1e-6):
            raise CallError(f"expected pattern {name!r} with the layer's scale {self.scale:g}, got {score.scale:g}")
        own = None if cap is None else cap.x
        if self.softcap and self.softcap != own:
            raise CallError(f"expected pattern {name!r} with the layer's `softcap {self.softcap:g}`, got {own}")
        if self.sinks != score.learned:
            has = "with learned_sink, for the layer has sinks" if self.sinks else "without learned_sink"
            raise CallError(f"expected pattern {name!r} {has}; got one {'with' if score.learned else 'without'} it")
        if self.alibi is not None:
            alibi = score.get(Alibi)
            slopes = () if alibi is None else alibi.of_heads(heads)
            same = len(slopes) == len(self.alibi) and all(map(_near, slopes, self.alibi))
            if not same:
                raise CallError(
                    f"expected pattern {name!r} with the layer's alibi {list(self.alibi)}, got {list(slopes)}"
                )


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-5)


def check_served(pattern: Pattern) -> None:
    """Refuses a pattern that a server cannot run. Raises CallError."""
    if pattern.inputs:
        names = ", ".join(pattern.inputs)
        raise CallError(f"expected patterns without inputs, for vLLM gives none, got {pattern.name!r} with {names}")
