"""A decoder -> what its layers ask of their attention, seen in two forwards of a few tokens without any pattern.

Invariant: the decoder is as it was before, whatever its forward does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparsec.diagnostics.model import CallError
from sparsec.integrations.transformers.cache import SparseCache
from sparsec.integrations.transformers.hybrids import state_layers

TOKENS = 4
"""In the first forward; the second has one more token, with a cache that claims to hold these."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of a layer's attention: shapes of q and of v, [batch, heads, tokens, head dim], and what came with it.

    attention_mask: its shape. options: the keyword arguments, a tensor's shape in its place.
    """

    module: nn.Module
    query: tuple[int, ...]
    key: tuple[int, ...]
    value: tuple[int, ...]
    attention_mask: tuple[int, ...] | None
    scaling: float | None
    options: dict[str, Any]


class NoCall(CallError):
    """Attention that was handed neither a `ModelCall` nor a `Witness`."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Stands where a `ModelCall` does, and notes what is asked; each layer's calls in order."""

    layers: dict[int, list[Asked]] = field(default_factory=dict)

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        scaling: float | None,
        options: dict[str, Any],
    ) -> tuple[Tensor, None]:
        """Notes the call; its output is of the right shape, and means nothing."""
        layer = getattr(module, "layer_idx", None)
        if not isinstance(layer, int):
            raise CallError(f"expected attention that knows its layer_idx, got {type(module).__name__} without")
        mask = None if attention_mask is None else tuple(getattr(attention_mask, "shape", (0,)))
        shown = {name: each.shape if isinstance(each, Tensor) else each for name, each in options.items()}
        shapes = tuple(query.shape), tuple(key.shape), tuple(value.shape)
        self.layers.setdefault(layer, []).append(Asked(module, *shapes, mask, scaling, shown))
        batch, heads, tokens, _ = query.shape
        return query.new_zeros(batch, tokens, heads, value.shape[-1]), None


def cache_argument(forward: Callable[..., Any]) -> str | None:
    """The name under which a forward takes its cache: that of the parameter that is annotated as one."""
    for name, parameter in inspect.signature(forward).parameters.items():
        if "Cache" in str(parameter.annotation) or name in ("cache", "past_key_values"):
            return name
    return None


def try_out(model: Any, decoder: Any, implementation: str) -> tuple[tuple[Asked, ...], ...]:
    """What each layer of `decoder` asks of its attention in one forward of `model`, in order; of a layer that does not
    attend, and keeps a state of its own kind, nothing.

    Raises CallError, and says what is missing, for a model that does not attend through transformers'
    AttentionInterface, in every layer and, unless it is an encoder, alike with a cache and without, or whose forward
    fails.
    """
    kind, count = type(decoder).__name__, _layer_count(decoder)
    name = cache_argument(model.forward)
    states = state_layers(decoder.config)
    attending = [layer for layer in range(count) if layer not in states]
    cache = SparseCache(count, TOKENS + 1, states=states)
    cache.end(TOKENS)  # claims to hold them
    with attending_by(decoder, implementation), evaluated(model), torch.no_grad():
        ids = _ids(decoder)
        without = {"use_cache": False} if name is not None else {}
        alone = _forward(model, decoder, input_ids=ids, attention_mask=torch.ones_like(ids), **without)
        if sorted(alone) != attending or not alone:
            raise CallError(
                f"expected self-attention in each of {len(attending)} layers of {kind}, through transformers' "
                f"AttentionInterface, got it in layers {sorted(alone)}"
            )
        if is_encoder(alone.values()):
            return tuple(tuple(alone.get(layer, ())) for layer in range(count))
        if name is None or cache_argument(decoder.forward) is None:
            raise CallError(f"expected a model that takes a cache, got {type(model).__name__}")
        mask = torch.ones_like(ids[:, :1]).expand(1, TOKENS + 1)
        following = _forward(model, decoder, input_ids=ids[:, :1], attention_mask=mask, use_cache=True, **{name: cache})
    if not cache.taken:
        raise CallError(f"expected a model that hands its cache to its decoder, got {type(model).__name__}")
    if not cache.reached:
        raise CallError(f"expected a decoder that hands its cache to its layers, got {kind}")
    if [len(alone[layer]) for layer in attending] != [len(following.get(layer, ())) for layer in attending]:
        raise CallError(f"expected the same attention with a cache as without, got another in {kind}")
    return tuple(tuple(alone.get(layer, ())) for layer in range(count))


def is_encoder(layers: Iterable[Sequence[Asked]]) -> bool:
    """Whether every layer's attention looks in both directions, by what its modules say."""
    return all(getattr(asked.module, "is_causal", True) is False for calls in layers for asked in calls)


@dataclass(frozen=True, slots=True)
class HandedDown:
    """Before a decoder's forward: hands a witness down in place of a `ModelCall`."""

    witness: object

    def __call__(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        mask = kwargs.get("attention_mask")
        if mask is not None and (not isinstance(mask, Tensor) or mask.dim() != 2):
            given = f"one of shape {list(mask.shape)}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
            raise CallError(
                f"expected a model that hands its attention_mask [batch, tokens] on to its decoder, got {given}"
            )
        for each in (*args, *kwargs.values()):
            if isinstance(each, SparseCache):
                each.taken = True
        return args, {**kwargs, "sparsec_call": self.witness}


def _forward(model: Any, decoder: Any, **arguments: Any) -> dict[int, list[Asked]]:
    trial, kind = Trial(), type(decoder).__name__
    handle = decoder.register_forward_pre_hook(HandedDown(trial), prepend=True, with_kwargs=True)
    try:
        model(**arguments)
    except NoCall as error:
        raise CallError(
            f"expected {kind} to hand keyword arguments down to its attention, got one that does not"
        ) from error
    except CallError:
        raise
    except Exception as error:  # whatever a host raises, the model does not fit
        what = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        with_cache = "with a cache of new_cache" if arguments.get("use_cache") else "without a cache"
        raise CallError(
            f"expected {kind} to run {with_cache}, on token ids and with no attention mask of its own, got {what}"
        ) from error
    finally:
        handle.remove()
    for layer, calls in trial.layers.items():
        for asked in calls:
            _check_shapes(asked, layer, arguments["input_ids"].shape[1])
    return trial.layers


def _check_shapes(asked: Asked, layer: int, tokens: int) -> None:
    kind, (_, heads, queries, head_dim) = type(asked.module).__name__, asked.query
    kv_heads, keys = asked.key[1:3]
    if asked.key[3] != head_dim:
        raise CallError(
            f"expected queries and keys of one head dimension, got {head_dim} and {asked.key[3]} in layer {layer} "
            f"({kind})"
        )
    if queries != tokens or keys != tokens or asked.value[2] != tokens:
        raise CallError(
            f"expected self-attention among the {tokens} tokens of a call, got {queries} queries, {keys} keys and "
            f"{asked.value[2]} values in layer {layer} ({kind})"
        )
    if asked.value[1] != kv_heads or heads % kv_heads:
        raise CallError(
            f"expected heads that share keys and values evenly, got {heads} heads, {kv_heads} of keys and "
            f"{asked.value[1]} of values in layer {layer} ({kind})"
        )


def _layer_count(decoder: Any) -> int:
    config = decoder.config
    found = getattr(config, "num_hidden_layers", None)
    return int(found) if found is not None else len(list(getattr(decoder, "layers", ())))


def _ids(decoder: Any) -> Tensor:
    """TOKENS tokens of one sequence, none of them one that the config gives a meaning of its own."""
    embeddings = decoder.get_input_embeddings()
    weight = getattr(embeddings, "weight", None)
    if weight is None:
        raise CallError(f"expected a decoder with an embedding of its tokens, got {type(decoder).__name__} without")
    special = {value for name, value in vars(decoder.config).items() if "token" in name and isinstance(value, int)}
    plain = next(number for number in range(len(special) + 1) if number not in special)
    return torch.full((1, TOKENS), plain, device=weight.device)


@contextmanager
def attending_by(decoder: Any, implementation: str) -> Iterator[None]:
    """With another attention implementation; raises CallError if there is no way to set it."""
    before = decoder.config._attn_implementation
    missing = CallError(f"expected a model that uses transformers' AttentionInterface, got {type(decoder).__name__}")
    try:
        try:
            decoder.set_attn_implementation(implementation)
        except (ValueError, NotImplementedError) as error:
            raise missing from error
        if decoder.config._attn_implementation != implementation:
            raise missing
        yield
    finally:
        decoder.set_attn_implementation(before)


@contextmanager
def evaluated(decoder: nn.Module) -> Iterator[None]:
    """In eval mode, module by module."""
    training = [module for module in decoder.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
