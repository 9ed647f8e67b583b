"""`apply`: a pattern into a model, by one hook on its decoder and one method of its `generate()`.

Invariant: parameters and module tree stay the model's own, so that state dicts, training and saving do not change.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any, TypeVar

from torch import nn
from torch.utils.hooks import RemovableHandle

from sparsec.diagnostics.model import CallError
from sparsec.integrations.transformers.attention import IMPLEMENTATION, Call, Kernels
from sparsec.integrations.transformers.cache import SparseCache
from sparsec.integrations.transformers.fit import attention_layers, counts_from_end, decoder_of, fit
from sparsec.integrations.transformers.padding import new_tokens, token_spans
from sparsec.program import Pattern, Program, load, parse
from sparsec.sema.arguments import Given

AnyModel = TypeVar("AnyModel", bound=nn.Module)

ASSISTED_ROLLBACK = 64
"""Tokens that assisted generation may take back at once, at least."""


def apply(
    model: AnyModel,
    program: Program | Path | str,
    name: str | None = None,
    *,
    params: Mapping[str, Given] | None = None,
    replace_window: bool = False,
    rollback: int = 0,
    target: str | None = None,
) -> AnyModel:
    """Makes a Hugging Face causal LM attend by a pattern in every layer, or by a model of patterns, layer by layer.

    program: a Program, a path (a Path, or a string that ends in `.sparse`), or source text. name: of a model or a
    pattern in it; left out, the file's model if it has one, else its only pattern. params: override parameters, as for
    `Program.pattern`. replace_window: the patterns stand for the model's own sliding windows or chunks; without it such
    a model is refused. rollback: how many of the latest tokens a cache of `generate()` can always take back. target: as
    for `sparsec.compile`.

    Returns `model`, changed in place; `remove` undoes it. The pattern goes into `model.config.sparsec`, which
    `save_pretrained` saves; `restore` applies it again to a model that was loaded. The model keeps its parameters and
    its state dict. A pattern with `learned_sink` uses, and trains, the model's own `sinks`. The model's scale holds; a
    pattern with another `scale` is refused.

    Rows of a batch may be padded on either side: the tokens of a row, from its first on, have positions 0, 1, ... in
    the pattern, so padding changes nothing. With a cache (in `generate()`) padding is at the left alone.
    Raises CallError for what the model asks and the pattern does not give, here or at a call; DiagnosticError for a
    pattern that is not causal, packs documents or is beyond the kernels; BuildError if the compiler fails.
    """
    chosen = _program(program)
    given = dict(params or {})
    if rollback < 0:
        raise CallError(f"expected rollback of at least 0, got {rollback}")
    decoder: Any = decoder_of(model)
    patterns = _patterns(chosen, name, given, len(attention_layers(decoder)))
    kernels = fit(decoder, patterns, replace_window=replace_window, target=target)
    for module, each in zip(attention_layers(decoder), kernels, strict=True):
        device = next(module.parameters()).device
        if device.type != "meta":  # a build takes seconds, and its errors belong here: not in the first call
            each.of(decoder.dtype, device, getattr(module, "scaling", None))
    if _patch_of(decoder) is not None:
        remove(model)
    before = decoder.config._attn_implementation
    decoder.set_attn_implementation(IMPLEMENTATION)
    if decoder.config._attn_implementation != IMPLEMENTATION:
        raise CallError(f"expected a model that uses transformers' AttentionInterface, got {type(model).__name__}")
    patch = _Patch(
        kernels=kernels,
        arguments=tuple(inspect.signature(decoder.forward).parameters),
        ends=any(counts_from_end(each) for each in kernels),
        replace_window=replace_window,
        rollback=rollback,
        before=before,
    )
    patch.handle = decoder.register_forward_pre_hook(_Hook(patch), with_kwargs=True)
    decoder._sparsec = patch
    if hasattr(model, "_prepare_cache_for_generation"):
        model._prepare_cache_for_generation = MethodType(_prepare_cache, model)  # type: ignore[assignment]  # a method
    model.config.sparsec = {  # type: ignore[union-attr]  # a config takes any attribute
        "text": chosen.source.text,
        "filename": Path(chosen.source.name).name,
        "name": name,
        "params": {key: _plain(value) for key, value in given.items()},
        "replace_window": replace_window,
        "rollback": rollback,
    }
    return model


def restore(model: AnyModel, *, target: str | None = None) -> AnyModel:
    """Applies again what `model.config.sparsec` says, after `from_pretrained`; raises as `apply` does.

    Until then a loaded model attends as it would without sparsec.
    """
    saved = getattr(getattr(model, "config", None), "sparsec", None)
    if saved is None:
        raise CallError("expected a model that was saved with a pattern, got a config without `sparsec`")
    return apply(
        model,
        parse(saved["text"], filename=saved["filename"]),
        saved["name"],
        params=saved["params"],
        replace_window=saved["replace_window"],
        rollback=saved["rollback"],
        target=target,
    )


def remove(model: AnyModel) -> AnyModel:
    """Gives a model its own attention back, and takes the pattern out of its config."""
    decoder = decoder_of(model)
    patch = _applied(decoder)
    assert patch.handle is not None
    patch.handle.remove()
    del decoder._sparsec
    model.__dict__.pop("_prepare_cache_for_generation", None)
    decoder.set_attn_implementation(patch.before)  # type: ignore[operator]  # a method that torch's __getattr__ hides
    del model.config.sparsec  # type: ignore[union-attr]  # set by `apply`
    return model


def new_cache(model: nn.Module, max_len: int, *, rollback: int | None = None) -> SparseCache:
    """An empty cache for `model(..., past_key_values=cache)`: prefill in one call or in chunks, then token by token.

    max_len: columns that each sequence may have, padding included. rollback: see `apply`, whose value is the default.
    """
    patch = _applied(decoder_of(model))
    return SparseCache(len(patch.kernels), max_len, patch.rollback if rollback is None else rollback)


@dataclass(slots=True)
class _Patch:
    """What `apply` did to a decoder; `arguments` are the names of its forward's, in order."""

    kernels: tuple[Kernels, ...]
    arguments: tuple[str, ...]
    ends: bool
    replace_window: bool
    rollback: int
    before: str
    handle: RemovableHandle | None = None


@dataclass(frozen=True, slots=True)
class _Hook:
    """Before a decoder's forward: checks the call, and hands a `Call` down to its attention functions."""

    patch: _Patch

    def __call__(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        named = {**dict(zip(self.patch.arguments, args, strict=False)), **kwargs}
        cache = named.get("past_key_values")
        _check_call(decoder, named, cache)
        tokens = named["input_ids"] if named.get("input_ids") is not None else named.get("inputs_embeds")
        if tokens is None:
            raise CallError("expected input_ids or inputs_embeds, got neither")
        batch, new = tokens.shape[:2]
        counts = spans = None
        mask = named.get("attention_mask")
        if cache is None:
            named["use_cache"] = False  # the model would make a cache of its own
            spans = token_spans(mask, batch, new)
            if spans is not None and not self.patch.ends and all(first == 0 for first, _ in spans):
                spans = None  # padding that follows the tokens is seen by nobody
        else:
            columns = cache.get_seq_length()
            counts = new_tokens(mask, cache.lengths if columns else (0,) * batch, columns, new)
        named["sparsec_call"] = Call(self.patch.kernels, cache, counts, spans, self.patch.replace_window)
        return (), named


REFUSED = ("cu_seq_lens_q", "cu_seq_lens_k", "block_sequence_ids")
"""Arguments that pack sequences into one, or join tokens into blocks."""


def _check_call(decoder: nn.Module, named: Mapping[str, Any], cache: Any) -> None:
    if cache is None and named.get("use_cache"):
        raise CallError("expected past_key_values=new_cache(model, max_len) with use_cache=True, got no cache")
    if cache is not None and not isinstance(cache, SparseCache):
        raise CallError(f"expected past_key_values of new_cache(model, max_len), got {type(cache).__name__}")
    if cache is not None and decoder.training and getattr(decoder, "gradient_checkpointing", False):
        raise CallError("expected no cache with gradient checkpointing, got one")
    wanted = named.get("output_attentions")
    if wanted or (wanted is None and getattr(decoder.config, "output_attentions", False)):
        raise CallError("expected output_attentions=False, for no attention weights are made, got True")
    for name in REFUSED:
        if named.get(name) is not None:
            raise CallError(f"expected one sequence a row, got {name}")
    if named.get("is_causal") is False:
        raise CallError("expected a causal call, got is_causal=False")
    positions = named.get("position_ids")
    alone = (
        cache is None and named.get("attention_mask") is None
    )  # then transformers looks for packed sequences in them
    if alone and positions is not None and positions.dim() == 2 and bool((positions.diff() != 1).any()):
        raise CallError("expected position_ids that count up by 1, as one sequence a row has, got others")


def _prepare_cache(model: Any, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """`GenerationMixin._prepare_cache_for_generation`, with a SparseCache where that makes a cache."""
    original = type(model)._prepare_cache_for_generation
    call = inspect.signature(original).bind(model, generation_config, model_kwargs, *args, **kwargs).arguments
    if generation_config.cache_implementation not in (None, "dynamic", "dynamic_full"):
        kind = generation_config.cache_implementation
        raise CallError(f"expected no cache_implementation, for the pattern has its own cache, got {kind!r}")
    given = model_kwargs.get("past_key_values")
    if given is not None and not isinstance(given, SparseCache):
        raise CallError(f"expected past_key_values of new_cache(model, max_len), got {type(given).__name__}")
    if given is not None or generation_config.use_cache is False:
        return original(model, generation_config, model_kwargs, *args, **kwargs)
    rollback, room = _applied(decoder_of(model)).rollback, call["max_cache_length"]
    mode = getattr(call.get("generation_mode"), "value", None)
    if mode == "assisted_generation" or getattr(generation_config, "is_assistant", False):
        rollback = max(rollback, ASSISTED_ROLLBACK)
        room += rollback  # a draft may go on past the end
    model_kwargs["past_key_values"] = new_cache(model, room, rollback=rollback)
    return None


def _patch_of(decoder: nn.Module) -> _Patch | None:
    found = getattr(decoder, "_sparsec", None)
    assert found is None or isinstance(found, _Patch)
    return found


def _applied(decoder: nn.Module) -> _Patch:
    patch = _patch_of(decoder)
    if patch is None:
        raise CallError("expected a model that a pattern was applied to, got one without")
    return patch


def _program(given: Program | Path | str) -> Program:
    if isinstance(given, Program):
        return given
    if isinstance(given, Path) or given.endswith(".sparse"):
        return load(given)
    return parse(given)


def _patterns(program: Program, name: str | None, params: Mapping[str, Given], layers: int) -> Sequence[Pattern]:
    if name in program.models or (name is None and program.models):
        chosen = program.model(name, **params)
        if len(chosen) != layers:
            raise CallError(f"expected a model of {layers} layers, got {chosen.name!r} of {len(chosen)}")
        return [chosen.layer(layer) for layer in range(layers)]
    return [program.pattern(name, **params)] * layers


def _plain(value: Any) -> Any:
    """A parameter as JSON takes it."""
    if isinstance(value, range):
        return list(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [number for part in value for number in (part if isinstance(part, range) else [part])]
    return value
