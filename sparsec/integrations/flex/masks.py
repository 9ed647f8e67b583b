"""Checked pattern -> FlexAttention's functions of a pair: its set as a `mask_mod`, its score as a `score_mod`.

Invariant: both are built from the checked tree alone; nothing of the IR or the plan is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import assert_never

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError
from sparsec.integrations.flex.inputs import CallPlace
from sparsec.integrations.flex.terms import FlexUnavailable, PairPlace, needs_length, whole_test
from sparsec.program import Pattern
from sparsec.reference.parts import InputTensors
from sparsec.runtime.devices import default_device, device_of
from sparsec.sema.inputs import settled
from sparsec.sema.model import Documents, ResolvedPattern
from sparsec.sema.modifiers import Alibi, KeyBias, LearnedSink, Modifier, Softcap

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
Place = torch.device | str | None


def place_of(device: Place) -> torch.device:
    """The GPU, if there is one, where none is given."""
    return default_device(None) if device is None else device_of(device)


def settled_pattern(
    pattern: Pattern | ResolvedPattern, heads: int | None, kv_heads: int | None, *, whatever: bool = True
) -> ResolvedPattern:
    """`pattern` for its head counts; without any, if `whatever`, for one head where it is the same for every head.

    Raises CallError.
    """
    if isinstance(pattern, ResolvedPattern):
        return pattern
    if not isinstance(pattern, Pattern):
        raise CallError(f"expected a Pattern, as Program.pattern() gives it, or resolved, got {pattern!r:.80}")
    alike = pattern.alike if whatever and heads is None and kv_heads is None else None
    return pattern.resolve(heads, kv_heads) if alike is None else alike


def mask_mod(
    pattern: Pattern | ResolvedPattern,
    n_q: int | None = None,
    n_k: int | None = None,
    device: Place = None,
    *,
    heads: int | None = None,
    kv_heads: int | None = None,
    cu_seqlens: Sequence[int] | None = None,
    inputs: Mapping[str, InputTensors] | None = None,
) -> MaskMod:
    """The set of `pattern` as FlexAttention's `mask_mod(b, h, q_idx, kv_idx)`: the same pairs, for any length.

    n_q, n_k: how many queries and keys there are, and the last query sees the last key; n_k is n_q if left out. Without
    both, queries and keys count alike from 0, as in self-attention. device: of the tensors that the function reads; the
    GPU, if there is one. heads, kv_heads: where the pattern leaves them out and is not the same for every head.
    cu_seqlens: where the documents start, and n_k last; an empty one counts. inputs: on `device`, checked.

    Raises CallError where cu_seqlens is not given for patterns with documents, whose n_q is n_k, and for no others; and
    without n_q for patterns that count back from the last key, draw at random or have inputs. Raises FlexUnavailable
    for inputs that are not given, and for those of documents that restart.
    """
    found = settled_pattern(pattern, heads, kv_heads, whatever=not (isinstance(pattern, Pattern) and pattern.inputs))
    if (cu_seqlens is None) != (found.documents is Documents.NONE):
        raise CallError("expected cu_seqlens for patterns with documents and for no others")
    if found.inputs and (inputs is None or (found.documents is Documents.RESTART and len(cu_seqlens or ()) > 2)):
        raise FlexUnavailable("a set with inputs is known only at run time, and of one document")
    where = place_of(device)
    if cu_seqlens is not None and n_q is None:
        n_q = int(cu_seqlens[-1])
    if n_q is None:
        if n_k is not None:
            raise CallError(f"expected n_q beside n_k, got n_k={n_k} alone")
        if needs_length(found):
            raise CallError("expected n_q, for the pattern counts from the last key, draws or has inputs; got none")
    n_k = n_q if n_k is None else n_k
    queries, keys = n_q or 0, n_k or 0
    at = CallPlace(found.heads, keys - queries, queries, keys, found.block)
    given = tuple(_pair((inputs or {})[decl.name]) for decl in found.inputs)
    whole = whole_test(found, PairPlace(at, where, settled(found.inputs, found.block), given))
    if cu_seqlens is None:
        return lambda b, h, q, kv: whole(b, h, q + (keys - queries), kv, keys)
    if queries != keys or list(cu_seqlens) != sorted(cu_seqlens) or cu_seqlens[0] != 0 or cu_seqlens[-1] != keys:
        raise CallError(
            f"expected n_q = n_k, and cu_seqlens from 0 up to it, got {queries}, {keys} and {list(cu_seqlens)}"
        )
    bounds = torch.tensor(list(cu_seqlens), dtype=torch.int64)
    document = torch.repeat_interleave(torch.arange(len(bounds) - 1), bounds.diff()).to(where)
    if found.documents is Documents.SEPARATE:
        return lambda b, h, q, kv: (document[q] == document[kv]) & whole(b, h, q, kv, keys)
    starts, sizes = bounds[:-1].to(where), bounds.diff().to(where)

    def restarted(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        own, other = document[q], document[kv]
        return (own == other) & whole(b, h, q - starts[own], kv - starts[other], sizes[own])

    return restarted


def score_mod(
    pattern: Pattern | ResolvedPattern,
    q_offset: int = 0,
    device: Place = None,
    *,
    heads: int | None = None,
    kv_heads: int | None = None,
    inputs: Mapping[str, InputTensors] | None = None,
) -> ScoreMod | None:
    """What changes the score of a pair, as FlexAttention's `score_mod`, queries starting at q_offset; None if nothing
    does. The pattern's `scale` is FlexAttention's own argument, and its `learned_sink` is left out: it is of a row.

    device, heads, kv_heads: as for `mask_mod`. inputs: on `device`; those of `key_bias`. Raises CallError.
    """
    found = settled_pattern(pattern, heads, kv_heads)
    if heads is None and any(isinstance(each, Alibi | KeyBias) for each in found.score.modifiers):
        found = settled_pattern(pattern, heads, kv_heads, whatever=False)
    where = place_of(device)
    given = {decl.name: _pair((inputs or {})[decl.name])[0] for decl in found.inputs if inputs}
    made = (_bend(each, found, q_offset, where, given) for each in found.score.modifiers)
    bends = [bend for bend in made if bend is not None]
    if len(bends) < 2:
        return bends[0] if bends else None
    first, *others = bends

    def bent(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        score = first(score, b, h, q, kv)
        for bend in others:
            score = bend(score, b, h, q, kv)
        return score

    return bent


def _bend(
    modifier: Modifier, pattern: ResolvedPattern, q_offset: int, device: torch.device, given: Mapping[str, Tensor]
) -> ScoreMod | None:
    heads = pattern.heads
    match modifier:
        case Softcap(x):
            return lambda score, b, h, q, kv: x * torch.tanh(score / x)
        case Alibi():
            slopes = torch.tensor(modifier.of_heads(heads), dtype=torch.float32, device=device)
            return lambda score, b, h, q, kv: score - slopes[h] * (q + q_offset - kv).abs()
        case KeyBias(ordinal):
            name = pattern.inputs[ordinal].name
            if name not in given:
                raise CallError(f"expected inputs with {name!r}, which key_bias adds to scores, got none")
            weights = given[name]
            batch, of_heads = weights.shape[:2]
            return lambda score, b, h, q, kv: (
                score + weights[b if batch > 1 else 0, h * of_heads // heads if of_heads > 1 else 0, kv]
            )
        case LearnedSink():  # of a row, not of a pair: FlexAttention runs without
            return None
        case _:
            assert_never(modifier)


def _pair(value: InputTensors) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)
