"""`profile`: a model and a prompt -> the cheapest policy of each KV group that recovers enough of its attention.

Invariant: the model is run once, densely, and is as it was before; each layer's queries and keys are seen when the
layer attends, and held no longer.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparsec.diagnostics.arguments import integer
from sparsec.diagnostics.model import CallError
from sparsec.diagnostics.progress import progress
from sparsec.integrations.transformers.attention import IMPLEMENTATION, LayerKernels
from sparsec.integrations.transformers.fit import decoder_of, fit
from sparsec.integrations.transformers.hooks import Patch
from sparsec.integrations.transformers.profile_text import Profile, chosen_policies
from sparsec.integrations.transformers.recovery import (
    DENSE,
    HELD,
    FastGen,
    LayerRecovery,
    StreamingHeads,
    layer_recovery,
)
from sparsec.integrations.transformers.trial import HandedDown, attending_by, evaluated, try_out
from sparsec.program import Program, parse

Prompt = Tensor | Sequence[int]


def profile(
    model: nn.Module,
    input_ids: Prompt,
    *,
    recovery: float = 0.95,
    special: Iterable[int] | None = None,
    punctuation: Iterable[int] | None = None,
    local: float = 0.3,
    frequent: float = 0.3,
    minimum: bool = False,
    tokenizer: Any = None,
    target: str | None = None,
) -> Program:
    """FastGen (arXiv 2310.01801): what each KV group of a Hugging Face causal LM has to keep of a prompt.

    The policies are, each with the keys of the one before: special tokens, punctuation, frequent keys, the latest keys,
    everything. A group gets the first one that recovers at least `recovery` of its attention: soft-max mass on the
    policy's keys, the mean over all queries of the prompt and over the group's query heads, or with `minimum` the least
    of these heads' means. A recovery of 1 is that of everything alone.

    input_ids: [N] or [B, N], without padding; prompts of a batch count together. special, punctuation: ids of tokens;
    left out, those of the `tokenizer`: its special tokens, and those of punctuation characters alone. local: the latest
    int(local * N) keys, at least one. frequent: of the keys that are neither special nor punctuation the
    ceil(frequent * N) with the most attention, added up over the prompt and the group's heads. target: as for
    `sparsec.compile`.

    The program's text is a model with a pattern for each kind of layer; `apply(model, program)` runs it. A prompt, the
    first call on an empty cache, attends to everything, and its frequent keys, as many as in the prompt of the profile,
    are found when it ends. After it new special and punctuation tokens stay and the latest keys slide. A new token that
    is neither may be frequent: after each call the frequent keys of a group are those with the most attention of its
    queries since the prompt began, of the keys that were frequent before and the new ones; one that is still among the
    latest keys stays in the choice. Keys that a policy drops are seen no more, and their memory is given back. Without
    a cache the model is dense.

    Layer by layer the kernels give log-sum-exps and the mass of keys: memory is that of one layer's attention, and no
    matrix of queries and keys is made. Raises CallError, and BuildError if the compiler fails.
    """
    method = fastgen_of(tokenizer, special=special, punctuation=punctuation, local=local, frequent=frequent)
    found = profile_by(method, model, input_ids, recovery=recovery, minimum=minimum, target=target)
    return parse(found.text, filename="<fastgen>")


def profile_streaming(
    model: nn.Module,
    input_ids: Prompt,
    *,
    recovery: float = 0.98,
    sink: int = 64,
    recent: int = 256,
    minimum: bool = False,
    target: str | None = None,
) -> Program:
    """Which KV groups need everything, and which get by with the first `sink` tokens and the `recent` ones, as
    DuoAttention divides them; the rest is as for `profile`. The groups of the program that stream do so in a prompt
    too."""
    method = StreamingHeads(integer("sink", sink, 0), integer("recent", recent, 1))
    found = profile_by(method, model, input_ids, recovery=recovery, minimum=minimum, target=target)
    return parse(found.text, filename="<streaming>")


def fastgen_of(
    tokenizer: Any,
    *,
    special: Iterable[int] | None = None,
    punctuation: Iterable[int] | None = None,
    local: float,
    frequent: float,
) -> FastGen:
    """Arguments as those of `profile`."""
    if (special is None or punctuation is None) and tokenizer is None:
        raise CallError("expected tokenizer=, or special= and punctuation=, the ids of such tokens, got neither")
    return FastGen(
        _token_ids("special", special_ids(tokenizer) if special is None else special),
        _token_ids("punctuation", punctuation_ids(tokenizer) if punctuation is None else punctuation),
        _share("local", local),
        _share("frequent", frequent),
    )


def profile_by(
    method: FastGen | StreamingHeads,
    model: nn.Module,
    input_ids: Prompt,
    *,
    recovery: float,
    minimum: bool = False,
    target: str | None = None,
) -> Profile:
    """What `profile` and `profile_streaming` choose; arguments as theirs."""
    if not 0 < recovery <= 1:
        raise CallError(f"expected recovery above 0 and up to 1, got {recovery}")
    decoder: Any = decoder_of(model)
    if isinstance(getattr(decoder, "_sparsec", None), Patch):
        raise CallError("expected a model with its own attention, got one with a pattern; remove(model) takes it out")
    tokens = _prompt(input_ids, decoder)
    calls = try_out(model, decoder, IMPLEMENTATION)
    for layer, asked in enumerate(calls):
        if len(asked) != 1:
            raise CallError(f"expected layers that attend once in a forward, got {len(asked)} times in layer {layer}")
    dense, held = (
        fit(decoder, calls, [parse(text).pattern()] * len(calls), replace_window=False, target=target, selected=True)
        for text in (DENSE, HELD)
    )
    with progress() as report, attending_by(decoder, IMPLEMENTATION), evaluated(model), torch.no_grad():
        watch = _Watch(method, tokens, dense, held, minimum, report)
        handle = decoder.register_forward_pre_hook(HandedDown(watch), prepend=True, with_kwargs=True)
        try:
            decoder(input_ids=tokens, use_cache=False)
        finally:
            handle.remove()
    heads = dense[0].heads
    if any((each.heads, each.kv_heads) != (heads, dense[0].kv_heads) for each in dense):
        counts = sorted({(each.heads, each.kv_heads) for each in dense})
        raise CallError(f"expected layers of as many heads each, got (heads, KV heads) {counts}")
    return chosen_policies(
        method, recovery, tokens.shape[1], heads, [watch.found[layer] for layer in range(len(calls))]
    )


@dataclass(frozen=True, slots=True)
class _Watch:
    """Attends densely, and notes what each layer's policies recover."""

    method: FastGen | StreamingHeads
    tokens: Tensor
    dense: tuple[LayerKernels, ...]
    held: tuple[LayerKernels, ...]
    minimum: bool
    report: Callable[[str], None]
    found: dict[int, LayerRecovery] = field(default_factory=dict)

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None,
        options: dict[str, Any],
    ) -> tuple[Tensor, None]:
        layer = module.layer_idx
        assert isinstance(layer, int)
        device = query.device
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else query.dtype
        dense, held = (of[layer].of(dtype, device, scaling) for of in (self.dense, self.held))
        tokens = self.tokens.to(device)
        out, found = layer_recovery(self.method, tokens, dense, held, query, key, value, minimum=self.minimum)
        self.found[layer] = found
        self.report(f"profiled {len(self.found)} of {len(self.dense)} layers")
        return out.transpose(1, 2).contiguous(), None


def special_ids(tokenizer: Any) -> set[int]:
    """The ids of the tokens that a tokenizer calls special, those of a chat's turns among them."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {*tokenizer.all_special_ids, *(number for number, token in added.items() if token.special)}


def punctuation_ids(tokenizer: Any) -> set[int]:
    """The ids of the tokens that are, but for spaces, punctuation characters alone."""
    special = special_ids(tokenizer)
    numbers = [number for number in range(len(tokenizer)) if number not in special]
    texts = tokenizer.batch_decode([[number] for number in numbers], clean_up_tokenization_spaces=False)
    return {number for number, text in zip(numbers, texts, strict=True) if _is_punctuation(text.strip())}


def _is_punctuation(text: str) -> bool:
    return bool(text) and all(each in string.punctuation or unicodedata.category(each)[0] == "P" for each in text)


def _token_ids(name: str, given: Iterable[int]) -> tuple[int, ...]:
    """Ascending ids."""
    return tuple(sorted({integer(f"an id of {name}", each, 0) for each in given}))


def _share(name: str, given: float) -> float:
    if not 0 <= given <= 1:
        raise CallError(f"expected {name} from 0 to 1, a share of the prompt, got {given}")
    return given


def _prompt(given: Prompt, decoder: Any) -> Tensor:
    tokens = torch.as_tensor(given)
    tokens = tokens[None] if tokens.dim() == 1 else tokens
    if tokens.dim() != 2 or not tokens.numel() or tokens.dtype not in (torch.int64, torch.int32):
        raise CallError(f"expected input_ids [N] or [B, N], integers, got {tokens.dtype} {list(tokens.shape)}")
    embedding = decoder.get_input_embeddings()
    if int(tokens.min()) < 0 or int(tokens.max()) >= embedding.num_embeddings:
        found = f"{int(tokens.min())} to {int(tokens.max())}"
        raise CallError(f"expected ids from 0 to {embedding.num_embeddings - 1}, got {found}")
    return tokens.to(embedding.weight.device)
