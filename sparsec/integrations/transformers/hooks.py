"""A call of a model -> the `ModelCall` that its layers attend through, and a check that they did.

Invariant: a cache that a call is given reaches the decoder, its layers and each layer's attention, or CallError is
raised: a call that left it out would answer as if nothing had been said before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.cache_utils import Cache

from sparsec.diagnostics.model import CallError
from sparsec.diagnostics.progress import progress
from sparsec.integrations.transformers.attention import LayerKernels, ModelCall
from sparsec.integrations.transformers.batch_call import Batched
from sparsec.integrations.transformers.cache import SparseCache
from sparsec.integrations.transformers.hybrids import state_layers
from sparsec.integrations.transformers.lists import Selector
from sparsec.integrations.transformers.marks import CallMarks, Marks
from sparsec.integrations.transformers.padding import given_bounds, new_tokens, packed_bounds, token_spans
from sparsec.integrations.transformers.prompts import options_of
from sparsec.integrations.transformers.ranks import LENGTH, SequenceRanks
from sparsec.integrations.transformers.selection import Selection
from sparsec.runtime.build.ahead import build_ahead
from sparsec.runtime.build.at_once import side_by_side
from sparsec.runtime.kv.growth import FIRST
from sparsec.runtime.module import SparseAttention

REFUSED = ("block_sequence_ids",)
"""Arguments that join tokens into blocks."""
PACKING = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
"""Arguments that say where the sequences of one row start, as a collator for packed sequences gives them."""


@dataclass(slots=True)
class Patch:
    """What `apply` did to a decoder.

    layers: how many the decoder has. places: of those that attend, in order; what follows is of these. modules: the
    attention of each layer. attends: how often each attends in a forward. scalings: the scale of its
    scores. arguments: the names of the decoder's arguments, in order. cache_name: that of its cache. ends: whether a
    pattern has a bound that counts from the end. selector: what gives inputs that the model does not. marks: those that
    the file says how to make. selection: which keys of a prompt stay. ranks: those that hold a sequence together.
    kv_dtype: what caches store, if not the model's dtype. before: the attention implementation that the decoder had.
    """

    layers: int
    places: tuple[int, ...]
    kernels: tuple[LayerKernels, ...]
    modules: tuple[nn.Module, ...]
    attends: tuple[int, ...]
    scalings: tuple[float | None, ...]
    arguments: tuple[str, ...]
    cache_name: str
    ends: bool
    replace_window: bool
    rollback: int
    selector: Selector | None = None
    marks: Marks | None = None
    selection: Selection | None = None
    ranks: SequenceRanks | None = None
    kv_dtype: str | None = None
    before: str = ""
    handles: tuple[RemovableHandle, ...] = ()
    ahead: dict[str, bool] = field(default_factory=lambda: {"cache": False, "gradients": False})

    @property
    def encodes(self) -> bool:
        """Whether the model looks in both directions, and has no cache."""
        return self.kernels[0].encodes

    @property
    def hybrid(self) -> bool:
        """Whether some layers do not attend."""
        return len(self.places) < self.layers

    def of_layers(self) -> tuple[LayerKernels | None, ...]:
        """The kernels of each layer of the decoder; None of one that does not attend."""
        found = dict(zip(self.places, self.kernels, strict=True))
        return tuple(found.get(layer) for layer in range(self.layers))

    def new_cache(
        self, config: Any, max_len: int, rollback: int, *, grows: bool = False, prompt: int | None = None
    ) -> SparseCache:
        """An empty one; config: of the decoder."""
        states = state_layers(config) if self.hybrid else None
        more: dict[str, Any] = {"states": states, "kv_dtype": self.kv_dtype}
        return SparseCache(self.layers, max_len, rollback, grows=grows, prompt=prompt, **more)


def compile_layers(patch: Patch, dtype: torch.dtype) -> None:
    """Compiles what the layers will call, side by side: a build takes seconds, and its errors belong to `apply`.

    Layers of equal patterns share what is built. Those on the device meta wait for their first call.
    """
    works: dict[Hashable, Callable[[], SparseAttention]] = {}
    layers = []
    for module, each, scaling in zip(patch.modules, patch.kernels, patch.scalings, strict=True):
        device = next(module.parameters()).device
        if device.type != "meta":
            make = partial(each.of, dtype, device, scaling)
            layers.append(make)
            key = each.pattern.resolve(each.heads, each.kv_heads), each.head_dim, each.value_dim, scaling, device
            works.setdefault(key, make)
    with progress() as report:
        side_by_side(tuple(works.items()), lambda done, of: report(f"compiled {done} of {of} kinds of layers"))
    for make in layers:
        make()


def _build_first(patch: Patch, what: str) -> None:
    """Builds `what` of all layers side by side, before the first call that needs it."""
    if patch.ahead[what] or torch.compiler.is_compiling():
        return
    patch.ahead[what] = True
    modules = {id(each): each for kernels in patch.kernels for each in kernels.compiled.values()}
    with progress() as report:
        build_ahead(
            modules.values(),
            cache=what == "cache",
            kv_dtype=patch.kv_dtype,
            gradients=what == "gradients",
            progress=lambda done, of: report(f"built {what} kernels, {done} of {of}"),
        )


@dataclass(frozen=True, slots=True)
class BeforeModel:
    """Before the forward of a model around a decoder: waits for the decoder to get the cache that the model is given.

    `AfterModel` looks whether it did.
    """

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for each in (*args, *kwargs.values()):
            if isinstance(each, SparseCache):
                each.taken = False


@dataclass(frozen=True, slots=True)
class AfterModel:
    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        for each in (*args, *kwargs.values()):
            if isinstance(each, SparseCache) and not each.taken:
                raise CallError(f"expected a model that hands its cache to its decoder, got {type(model).__name__}")


@dataclass(frozen=True, slots=True)
class BeforeDecoder:
    """Before a decoder's forward: checks the call, and hands a `ModelCall` down to its attention functions."""

    patch: Patch

    def __call__(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if kwargs.get("sparsec_call") is not None:  # of somebody who watches
            return args, kwargs
        named = {**dict(zip(self.patch.arguments, args, strict=False)), **kwargs}
        if isinstance(named.get("cache"), Batched):  # of continuous batching
            return (), {**named, "sparsec_call": named["cache"].call(named)}
        tokens = named["input_ids"] if named.get("input_ids") is not None else named.get("inputs_embeds")
        if tokens is None:
            raise CallError("expected input_ids or inputs_embeds, got neither")
        cache = self._cache(decoder, named, tokens)
        refuse_unsupported(decoder, named, cache, encodes=self.patch.encodes)
        packed = _packed(self.patch, named, tokens, cache)
        counts = spans = padding = None
        mask = named.get("attention_mask")
        if cache is not None:
            _build_first(self.patch, "cache")
        elif decoder.training and torch.is_grad_enabled():
            _build_first(self.patch, "gradients")
        if cache is not None:
            counts = _begin(self.patch, cache, tokens, mask)
            padding = _padding(cache, tokens, counts)
        else:
            if "use_cache" in self.patch.arguments:
                named["use_cache"] = False  # the model would make a cache of its own
            spans = token_spans(mask, tokens.shape[0], tokens.shape[1])
            if (
                spans is not None
                and not self.patch.ends
                and not self.patch.encodes
                and all(first == 0 for first, _ in spans)
            ):
                spans = None  # padding that follows the tokens is seen by nobody
        kernels, attended = self.patch.of_layers(), [0] * self.patch.layers
        selection = self.patch.selection
        named["sparsec_call"] = ModelCall(
            kernels,
            tokens.shape[1],
            cache,
            counts,
            spans,
            self.patch.replace_window,
            attended,
            self.patch.selector,
            padding,
            self._marks(named, cache),
            None if selection is None else selection.of_call(cache, tokens.shape[1]),
            None if self.patch.ranks is None else (self.patch.ranks, named.pop(LENGTH)),
            packed,
        )
        return (), named

    def _marks(self, named: dict[str, Any], cache: SparseCache | None) -> CallMarks | None:
        if self.patch.marks is None:
            return None
        prompt = cache is None or cache.get_seq_length() == 0
        return self.patch.marks.of_call(named.get("input_ids"), prompt=prompt, cached=cache is not None)

    def _cache(self, decoder: nn.Module, named: dict[str, Any], tokens: Tensor) -> SparseCache | None:
        """The cache among the arguments, by whatever name it comes; a new one, put among them, if one is asked for."""
        name = self.patch.cache_name
        found = [each for each in named.values() if isinstance(each, Cache)]
        if named.get(name) is not None and not isinstance(named[name], Cache):
            found.append(named[name])
        if not found and named.get("use_cache"):
            # A host that drops its cache to compute all again, or a call that wants one to go on from.
            mask = named.get("attention_mask")
            if isinstance(mask, Tensor) and mask.dim() == 2 and mask.shape[1] > tokens.shape[1]:
                raise CallError(
                    f"expected all {mask.shape[1]} tokens of the attention_mask in a call that has no cache yet, got "
                    f"the last {tokens.shape[1]}: the model has dropped the cache that held the others"
                )
            found = [self.patch.new_cache(decoder.config, FIRST, self.patch.rollback, grows=True)]
            named[name] = found[0]
        if not found:
            return None
        if len(found) > 1 or not isinstance(found[0], SparseCache):
            kinds = " and ".join(type(each).__name__ for each in found)
            raise CallError(f"expected a cache of new_cache(model, max_len), got {kinds}")
        return found[0]


@dataclass(frozen=True, slots=True)
class BeforeAttention:
    """Before an attention module's forward: notes what it is given of a prompt that is to be scored."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = kwargs.get("sparsec_call")
        if isinstance(call, ModelCall) and call.selecting is not None and call.selecting.reads:
            assert isinstance(module.layer_idx, int)
            call.selecting.seen[module.layer_idx] = options_of(args, kwargs)


@dataclass(frozen=True, slots=True)
class AfterDecoder:
    """After a decoder's forward: checks that its cache was used, and counts what it holds now."""

    patch: Patch

    def __call__(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        call = kwargs["sparsec_call"]
        if not isinstance(call, ModelCall) or call.cache is None:
            return
        if not call.cache.reached:
            raise CallError(f"expected a decoder that hands its cache to its layers, got {type(decoder).__name__}")
        attended = [call.attended[place] for place in self.patch.places]
        if tuple(attended) != self.patch.attends:
            raise CallError(
                f"expected layers that attend {list(self.patch.attends)} times in a forward, got {attended}"
            )
        call.cache.end(call.new)


@torch.compiler.disable(reason="lengths and masks are read on the host")  # type: ignore[no-untyped-call, untyped-decorator]
def _begin(patch: Patch, cache: SparseCache, tokens: Tensor, mask: Any) -> Tensor | None:
    """Makes the cache ready for `tokens` [batch, new, ...]; how many are tokens of each row, as for `ModelCall`."""
    batch, new = tokens.shape[:2]
    columns = cache.get_seq_length()
    cache.begin(new)
    cache.taken = True
    if columns == 0:
        for module, kernels, layer, attends, scaling in zip(
            patch.modules, patch.kernels, cache.own, patch.attends, patch.scalings, strict=True
        ):
            weight = next(each for each in module.parameters() if each.is_floating_point())
            if weight.device.type == "meta" or patch.selection is not None:
                continue  # weights that come for the forward alone, or layers that drop keys one after the other
            autocast = torch.is_autocast_enabled(weight.device.type)
            dtype = torch.get_autocast_dtype(weight.device.type) if autocast else weight.dtype
            attn = kernels.of(dtype, weight.device, scaling)
            for nth in range(attends):
                layer.prepare(attn, nth, batch, weight.device, drops=bool(kernels.made))
    counts = new_tokens(mask, cache.lengths if columns else (0,) * batch, columns, new)
    return None if counts is None else torch.tensor(counts, dtype=torch.int32)


def _padding(cache: SparseCache, tokens: Tensor, counts: Tensor | None) -> Tensor | None:
    """The columns before each row's first token, int [rows]; None if there are none."""
    columns, new = cache.get_seq_length(), tokens.shape[1]
    held = torch.tensor(cache.lengths or (0,) * tokens.shape[0])
    padding = columns + new - held - (new if counts is None else counts)
    return padding if bool(padding.any()) else None


def _packed(patch: Patch, named: dict[str, Any], tokens: Tensor, cache: SparseCache | None) -> Tensor | None:
    """Where the sequences start that the call packs into one row, as for `ModelCall`; the arguments that say so go.

    Like transformers' causal masks, it looks for them in a decoder's position_ids where there is neither an
    attention_mask nor a cache. transformers makes a cache where the config says use_cache, and then does not look; here
    a call has a cache where it is given one, or asks with use_cache=True, so another one with positions that start anew
    is packed. An encoder's position_ids choose embeddings and say nothing of sequences.
    """
    given = {name: named.pop(name, None) for name in PACKING}
    asked = next((name for name, value in given.items() if value is not None), None)
    positions, mask = named.get("position_ids"), named.get("attention_mask")
    batch, new = tokens.shape[:2]
    bounds = None
    if asked is not None:
        if cache is not None or batch != 1 or patch.ranks is not None:
            raise CallError(f"expected {asked} with one row, without a cache and on one rank alone, got another call")
        bounds = given_bounds(given["cu_seq_lens_q"], given["cu_seq_lens_k"], new)
    elif patch.encodes or not isinstance(positions, Tensor) or positions.dim() != 2 or patch.ranks is not None:
        return None
    elif cache is None and mask is None and bool((positions.diff() != 1).any()):
        if batch != 1:
            raise CallError("expected position_ids that count up by 1, as one sequence a row has, got others")
        bounds = packed_bounds(positions, new)
    if bounds is None:
        return None
    if patch.hybrid:
        raise CallError(
            "expected one sequence a row for a model with layers that do not attend, whose states would go from one "
            "sequence into the next, got packed sequences"
        )
    if patch.selector is not None or any(each.pattern.inputs for each in patch.kernels):
        raise CallError("expected one sequence a row for a pattern with inputs, got packed sequences")
    named["attention_mask"] = torch.ones(1, new, dtype=torch.int64, device=tokens.device)
    return torch.tensor(bounds, dtype=torch.int32, device=tokens.device)


def refuse_unsupported(
    decoder: nn.Module, named: Mapping[str, Any], cache: SparseCache | None, *, encodes: bool = False
) -> None:
    """Refuses what a call asks for and a pattern does not give; encodes: as for `Patch`."""
    if encodes and (cache is not None or named.get("encoder_hidden_states") is not None):
        raise CallError("expected a call of an encoder without a cache and another's hidden states, got one with")
    if cache is not None and decoder.training and getattr(decoder, "gradient_checkpointing", False):
        raise CallError("expected no cache with gradient checkpointing, got one")
    wanted = named.get("output_attentions")
    if wanted or (wanted is None and getattr(decoder.config, "output_attentions", False)):
        raise CallError("expected output_attentions=False, for no attention weights are made, got True")
    for name in REFUSED:
        if named.get(name) is not None:
            raise CallError(f"expected one sequence a row, got {name}")
    if named.get("is_causal") is False and not encodes:
        raise CallError("expected a causal call, got is_causal=False")
