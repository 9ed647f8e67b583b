"""`apply`: a pattern into a model, by hooks on it and its decoder, and methods of its generation.

Invariant: parameters and module tree stay the model's own, so that state dicts, training and saving do not change.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh

from sparsec.diagnostics.model import CallError
from sparsec.integrations.choice import AnyProgram, origin_of, params_as_json, patterns_of
from sparsec.integrations.transformers.attention import IMPLEMENTATION
from sparsec.integrations.transformers.batching import Batching
from sparsec.integrations.transformers.budgets import Amount, Budget, budget_of
from sparsec.integrations.transformers.cache import SparseCache
from sparsec.integrations.transformers.fit import among_kept, counts_from_end, decoder_of, fit, unwrapped
from sparsec.integrations.transformers.hooks import (
    AfterDecoder,
    AfterModel,
    BeforeAttention,
    BeforeDecoder,
    BeforeModel,
    Patch,
    compile_layers,
)
from sparsec.integrations.transformers.lists import Selector
from sparsec.integrations.transformers.marks import marks_of
from sparsec.integrations.transformers.own import own_program
from sparsec.integrations.transformers.presses import Score, scorer_of
from sparsec.integrations.transformers.ranks import SequenceRanks, hooks_of_ranks
from sparsec.integrations.transformers.selection import KEPT, Selection
from sparsec.integrations.transformers.trial import cache_argument, is_encoder, try_out
from sparsec.program import Naming, Pattern, Program, parse
from sparsec.runtime.kv.stored import dtype_name, kv_dtype_of
from sparsec.runtime.module import SparseAttention
from sparsec.sema.arguments import Given

AnyModel = TypeVar("AnyModel", bound=nn.Module)

ASSISTED_ROLLBACK = 64
"""Tokens that assisted generation may take back at once, at least."""


def apply(
    model: AnyModel,
    program: AnyProgram,
    name: str | None = None,
    *,
    params: Mapping[str, Given] | None = None,
    replace_window: bool = False,
    rollback: int = 0,
    target: str | None = None,
    inputs: Selector | None = None,
    context_parallel: DeviceMesh | ProcessGroup | None = None,
    kv_dtype: torch.dtype | str | None = None,
) -> AnyModel:
    """Makes a Hugging Face causal LM, or an encoder, attend by a pattern in every layer, or by a model of patterns.

    program: a Program, a path (a Path, or a string that ends in `.sparse`), or source text. name: of a model or a
    pattern in it; left out, the file's model if it has one, else its only pattern. params: override parameters, as for
    `Program.pattern`. A Pattern of `Program.pattern`, or a Model of `Program.model`, stands for all three.
    replace_window: the patterns stand for the model's own sliding windows or chunks; without it such a model is
    refused. rollback: how many of the latest tokens a cache of `generate()` can always take back. kv_dtype: what caches
    store keys and values as (`SparseAttention.new_cache`). target: as for `sparsec.compile`. inputs: a function (layer,
    q, k) -> the tensors of the pattern's inputs by name, called with the queries [B, H, N, D] and keys [B, G, N, D] of
    each call of a layer's attention, those of its new tokens with a cache. An input of kind `rows` is given the lists
    of a model that chooses keys itself (DeepSeek V3.2 and models like it: `rows`; MiniMax M3: `rows(blocks)` of its
    block size). Without `inputs`, an input `x` of kind `tokens` marks the tokens of the ids in the file's parameter
    `x_ids`, or as many keys of the prompt as `x_keys` says, those with the most attention. These marks say what is seen
    of a cache: a prompt, the first call on an empty cache, marks every key, and when it ends its marks are those of the
    file, as those of each new token are. Without a cache every key is marked.

    context_parallel: the ranks, a process group or a DeviceMesh of one dimension, that hold each sequence together.
    Each gives the model the same whole sequences, without padding, and gets the logits of the tokens that are its own;
    the mean over the ranks of the losses that `labels` ask for, and of their gradients (DistributedDataParallel takes
    it), is that of one process. Without a cache: for training, and for a prompt alone.

    Returns `model`, changed in place; `remove` undoes it. The pattern goes into the model's config, as `sparsec`, which
    `save_pretrained` saves; `restore` applies it again to a model that was loaded. The model keeps its parameters and
    its state dict. A pattern with `learned_sink` uses, and trains, the model's own `sinks`. The model's scale holds; a
    pattern with another `scale` is refused.

    Two forwards of a few tokens show first, in eval mode and without a pattern, what each layer asks of its attention;
    a model that lacks something is refused then, and is as it was before. A cache that a call asks for with
    `use_cache=True`, or that `generate()` makes, grows when it has to.

    Rows of a batch may be padded on either side: the tokens of a row, from its first on, have positions 0, 1, ... in
    the pattern, so padding changes nothing. With a cache (in `generate()`) padding is at the left alone.
    Raises CallError for what the model asks and the pattern does not give, here or at a call; DiagnosticError for a
    pattern of a decoder that is not causal, packs documents or is beyond the kernels; BuildError if the compiler fails.
    """
    chosen = origin_of(program, name, params or {})
    return _apply(
        model,
        chosen.program,
        chosen.name,
        params=dict(chosen.params),
        replace_window=replace_window,
        rollback=rollback,
        target=target,
        inputs=inputs,
        kv_dtype=kv_dtype,
        select=None,
        ranks=None if context_parallel is None else SequenceRanks(context_parallel),
    )


def compress(
    model: AnyModel,
    score: Score | object,
    keep: Amount | Budget,
    *,
    rollback: int | None = None,
    target: str | None = None,
) -> AnyModel:
    """Makes a Hugging Face causal LM drop the keys of a prompt that score low, when the prompt ends.

    score: a function of a `Prompt` (a layer's queries, keys and values) that gives scores [B, G, N] of the keys of each
    KV group; or a press of kvpress, any object with `score(module, hidden_states, keys, values, attentions, kwargs)`,
    whose `attentions` are None and whose own ratio is not read. keep: how many of a prompt's keys stay in each KV
    group, those with the highest scores: a share (0.2), a number (512), one of these for each layer, or `adaptive` of
    any of these; or a function (scores [B, G, N], layer) -> bool [B, G, N]. rollback, target: as for `apply`.

    A prompt, the first call on an empty cache, attends as before: as the model's own layers do, which see all keys, a
    window or a chunk; or by the patterns that `apply` gave it. So do its chunks, where `generate()` reads it by
    `prefill_chunk_size`, or `new_cache` knows its length; what the layers attend with is then held until it ends. Then
    layer by layer the keys are scored, and those that do not stay are dropped: their memory is given back, by sequence
    and KV group. New tokens see the keys that stay and one another, within the pattern, at their own positions. Without
    a cache the model attends as before.

    Rows of a batch are scored by length, without their padding. Returns `model`, changed in place; `remove` undoes
    it, pattern and all. What is saved is the pattern alone. Raises CallError for what `apply` refuses, for a pattern
    with inputs, and in `generate()` with an assistant.
    """
    decoder = decoder_of(model)
    before = _patch_of(decoder)
    chosen = scorer_of(score, model, decoder)

    def select(layers: int) -> Selection:
        return Selection(chosen, budget_of(keep, layers))

    if before is None:
        own, whole = own_program(decoder)
        return _apply(model, own, replace_window=whole, rollback=rollback or 0, target=target, select=select)
    saved: Any = model.config.sparsec  # type: ignore[union-attr]  # set by `apply`
    return _apply(
        model,
        parse(saved["text"], filename=saved["filename"], imports=saved.get("imports", {})),
        saved["name"],
        params=saved["params"],
        replace_window=saved["replace_window"],
        rollback=saved["rollback"] if rollback is None else rollback,
        target=target if target is not None else before.kernels[0].target,
        kv_dtype=before.kv_dtype,
        select=select,
    )


def _apply(
    model: AnyModel,
    chosen: Program,
    name: str | None = None,
    *,
    params: Mapping[str, Given] = MappingProxyType({}),
    replace_window: bool = False,
    rollback: int,
    target: str | None,
    inputs: Selector | None = None,
    kv_dtype: torch.dtype | str | None = None,
    select: Callable[[int], Selection] | None,
    ranks: SequenceRanks | None = None,
) -> AnyModel:
    """`apply`, or `compress` if there is a `select`, which gets the number of layers."""
    if rollback < 0:
        raise CallError(f"expected rollback of at least 0, got {rollback}")
    wrapped, model = model, unwrapped(model)
    decoder: Any = decoder_of(model)
    stored = None if kv_dtype is None else dtype_name(kv_dtype_of(kv_dtype, decoder.dtype))
    asked = try_out(model, decoder, IMPLEMENTATION)
    places = tuple(place for place, calls in enumerate(asked) if calls)
    layers = [asked[place] for place in places]
    if len(places) < len(asked) and (ranks is not None or select is not None):
        what = "context_parallel" if ranks is not None else "compress"
        raise CallError(f"expected a model each of whose layers attends for {what}, got {len(places)} of {len(asked)}")
    encodes = is_encoder(layers)
    if encodes and (ranks is not None or select is not None):
        raise CallError("expected a decoder for context_parallel and compress, got a model that looks both ways")
    of_all = patterns_of(Naming(chosen, name, params), len(asked))
    patterns: Sequence[Pattern] = [of_all[place] for place in places]
    marks = marks_of(chosen, params) if inputs is None and select is None else None
    selection = None
    if select is not None:
        selection, patterns = select(len(layers)), among_kept(patterns, layers)
    kernels = fit(
        decoder,
        layers,
        patterns,
        places=places,
        replace_window=replace_window,
        target=target,
        selected=inputs is not None,
        marks=marks,
        among=() if select is None else (KEPT,),
        encodes=encodes,
    )
    cache_name = cache_argument(decoder.forward)
    patch = Patch(
        layers=len(asked),
        places=places,
        kernels=kernels,
        modules=tuple(calls[0].module for calls in layers),
        attends=tuple(len(calls) for calls in layers),
        scalings=tuple(calls[0].scaling for calls in layers),
        arguments=tuple(inspect.signature(decoder.forward).parameters),
        cache_name=cache_name or "",
        ends=any(counts_from_end(each) for each in kernels),
        replace_window=replace_window,
        rollback=rollback,
        selector=inputs,
        marks=marks if any(each.made for each in kernels) else None,
        selection=selection,
        ranks=ranks,
        kv_dtype=stored,
    )
    compile_layers(patch, decoder.dtype)
    if _patch_of(decoder) is not None:
        remove(model)
    patch.before = decoder.config._attn_implementation
    decoder.set_attn_implementation(IMPLEMENTATION)
    if ranks is not None:
        patch.handles = hooks_of_ranks(ranks, dict.fromkeys((model, decoder)), partial(_attentions, patch, decoder))
    patch.handles += (
        decoder.register_forward_pre_hook(BeforeDecoder(patch), with_kwargs=True),
        decoder.register_forward_hook(AfterDecoder(patch), with_kwargs=True),
    )
    if model is not decoder:
        patch.handles += (
            model.register_forward_pre_hook(BeforeModel(), with_kwargs=True),
            model.register_forward_hook(AfterModel(), with_kwargs=True),
        )
    if selection is not None:
        patch.handles += tuple(
            module.register_forward_pre_hook(BeforeAttention(), with_kwargs=True) for module in patch.modules
        )
    decoder._sparsec = patch
    if hasattr(model, "_prepare_cache_for_generation"):
        model._prepare_cache_for_generation = _PrepareCache(model)  # type: ignore[assignment]  # a method
        if selection is not None:
            model._prefill = _Prefill(model)  # type: ignore[assignment]  # a method
    if hasattr(type(model), "init_continuous_batching"):
        model.init_continuous_batching = Batching(model, patch)  # type: ignore[assignment]  # a method
    model.config.sparsec = {  # type: ignore[union-attr]  # a config takes any attribute
        "text": chosen.source.text,
        "imports": dict(chosen.imports),
        "filename": Path(chosen.source.name).name,
        "name": name,
        "params": params_as_json(params),
        "replace_window": replace_window,
        "rollback": rollback,
        **({} if stored is None else {"kv_dtype": stored}),
    }
    return wrapped


def restore(model: AnyModel, *, target: str | None = None, inputs: Selector | None = None) -> AnyModel:
    """Applies again what `sparsec` in the model's config says, after `from_pretrained`; raises as `apply` does.

    `target`, `inputs`: as for `apply`; a config does not hold them. Until then a loaded model attends as it would
    without sparsec.
    """
    saved = getattr(getattr(model, "config", None), "sparsec", None)
    if saved is None:
        raise CallError("expected a model that was saved with a pattern, got a config without `sparsec`")
    return apply(
        model,
        parse(saved["text"], filename=saved["filename"], imports=saved.get("imports", {})),
        saved["name"],
        params=saved["params"],
        replace_window=saved["replace_window"],
        rollback=saved["rollback"],
        kv_dtype=saved.get("kv_dtype"),
        target=target,
        inputs=inputs,
    )


def remove(model: AnyModel) -> AnyModel:
    """Gives a model its own attention back, and takes the pattern out of its config."""
    wrapped, model = model, unwrapped(model)
    decoder = decoder_of(model)
    patch = applied_patch(decoder)
    for handle in patch.handles:
        handle.remove()
    del decoder._sparsec
    if getattr(model, "_cached_continuous_batching_manager", None) is not None:
        model.destroy_cached_continuous_batching_manager()  # type: ignore[operator]  # its cache is for the pattern
    for method in ("_prepare_cache_for_generation", "_prefill", "init_continuous_batching"):
        model.__dict__.pop(method, None)
    decoder.set_attn_implementation(patch.before)  # type: ignore[operator]  # a method that torch's __getattr__ hides
    del model.config.sparsec  # type: ignore[union-attr]  # set by `apply`
    return wrapped


def new_cache(model: nn.Module, max_len: int, *, rollback: int | None = None, prompt: int | None = None) -> SparseCache:
    """An empty cache for a model's calls (its argument is `cache`, before transformers 5.24 `past_key_values`): prefill
    in one call or in chunks, then token by token.

    max_len: columns that each sequence may have, padding included. rollback: see `apply`, whose value is the default.
    prompt: the columns of a prompt that comes in chunks, for `compress`; left out, the first call is the prompt.
    """
    decoder: Any = decoder_of(model)
    patch = applied_patch(decoder)
    if patch.encodes:
        raise CallError("expected a decoder, got a model that looks in both directions, which has no cache")
    return patch.new_cache(decoder.config, max_len, patch.rollback if rollback is None else rollback, prompt=prompt)


@dataclass(frozen=True, slots=True)
class _PrepareCache:
    """`transformers.GenerationMixin._prepare_cache_for_generation` of a model, which makes a SparseCache."""

    model: Any

    def __call__(self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        model = self.model
        original = type(model)._prepare_cache_for_generation
        call = inspect.signature(original).bind(model, generation_config, model_kwargs, *args, **kwargs).arguments
        if generation_config.cache_implementation not in (None, "dynamic", "dynamic_full"):
            kind = generation_config.cache_implementation
            raise CallError(f"expected no cache_implementation, for the pattern has its own cache, got {kind!r}")
        decoder: Any = decoder_of(model)
        patch = applied_patch(decoder)
        name = cache_argument(model.forward) or patch.cache_name
        given = model_kwargs.get(name)
        if given is not None and not isinstance(given, SparseCache):
            raise CallError(f"expected a cache of new_cache(model, max_len), got {type(given).__name__}")
        if given is not None or generation_config.use_cache is False:
            return original(model, generation_config, model_kwargs, *args, **kwargs)
        rollback, room = patch.rollback, call["max_cache_length"]
        mode = getattr(call.get("generation_mode"), "value", None)
        if mode == "assisted_generation" and patch.selection is not None:
            raise CallError(
                "expected generate() without an assistant for a model that `compress` changed, for the first call of "
                "an assisted one brings the prompt and drafts after it, got one with"
            )
        if mode == "assisted_generation" and patch.hybrid:
            raise CallError(
                "expected generate() without an assistant for a model with layers that keep states, got one"
            )
        if mode == "assisted_generation" or getattr(generation_config, "is_assistant", False):
            rollback = max(rollback, ASSISTED_ROLLBACK)
            room += rollback  # a draft may go on past the end
        # It grows for a host that feeds more than it says: virtual tokens before the prompt, for one.
        model_kwargs[name] = patch.new_cache(decoder.config, room, rollback, grows=True)
        return None


@dataclass(frozen=True, slots=True)
class _Prefill:
    """`transformers.GenerationMixin._prefill` of a model, which tells an empty cache how long a prompt in chunks is."""

    model: Any

    def __call__(self, input_ids: Tensor, generation_config: Any, model_kwargs: dict[str, Any], **kwargs: Any) -> Any:
        if getattr(generation_config, "prefill_chunk_size", None) is not None and input_ids.shape[1]:
            for each in model_kwargs.values():
                if isinstance(each, SparseCache) and each.get_seq_length() == 0:
                    each.prompt = input_ids.shape[1]
        return type(self.model)._prefill(self.model, input_ids, generation_config, model_kwargs, **kwargs)


def _attentions(patch: Patch, decoder: Any, device: torch.device) -> list[SparseAttention]:
    """The module of each layer."""
    return [
        each.of(decoder.dtype, device, scaling) for each, scaling in zip(patch.kernels, patch.scalings, strict=True)
    ]


def _patch_of(decoder: nn.Module) -> Patch | None:
    found = getattr(decoder, "_sparsec", None)
    assert found is None or isinstance(found, Patch)
    return found


def applied_patch(decoder: nn.Module) -> Patch:
    patch = _patch_of(decoder)
    if patch is None:
        raise CallError("expected a model that a pattern was applied to, got one without")
    return patch
