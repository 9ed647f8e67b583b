"""Any callable that attends, compared with the meaning of a pattern over drawn shapes and inputs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from sparsec.diagnostics.arguments import integer
from sparsec.diagnostics.model import CallError
from sparsec.program import Pattern
from sparsec.reference.attention import attention
from sparsec.reference.mask import mask
from sparsec.sema.model import ResolvedPattern
from sparsec.sema.modifiers import KeyBias
from sparsec.sema.printer import sparse_text
from sparsec.testing.cases import Case, aligned_cases, longest_term, past_longest
from sparsec.testing.gradients import check_gradients
from sparsec.testing.inputs import key_bias_in
from sparsec.testing.probes import check_forward
from sparsec.testing.search import Search
from sparsec.testing.tolerance import assert_close, expected_attention, out_and_lse

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LONG = 1100
"""Keys at most where `max_keys` is left out: the reference is dense."""


class Attention(Protocol):
    """q [B, H, Nq, D], k and v [B, G, Nk, D] -> (out, LSE).

    cu_seqlens is passed for patterns with documents alone, and inputs, by name, for those that declare some.
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, /, *, return_lse: bool) -> tuple[Tensor, Tensor]: ...


class OutputAlone(Protocol):
    """The same without an LSE, and without `return_lse`: q, k, v -> out."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor: ...


def check_attention(
    attn: Attention | OutputAlone,
    pattern: Pattern | ResolvedPattern,
    *,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    value_dim: int | None = None,
    dtype: torch.dtype | Sequence[torch.dtype] = torch.float32,
    device: torch.device | str = "cpu",
    sink: Tensor | None = None,
    probes: bool = False,
    lse: bool = True,
    gradients: bool = False,
    seeds: int | Sequence[int] = 0,
    examples: int = 50,
    max_keys: int | None = None,
) -> None:
    """Raises AssertionError with the smallest failing case if `attn` is not the attention that `pattern` means.

    The last query sees the last key (q_offset is Nk - Nq, at least 0). The output has to be [B, H, Nq, value_dim] of
    q's dtype, and the natural LSE float32, or float64 for a float64 q. An exception of `attn` comes through, with the
    smallest case that raises one as a note. heads, kv_heads: where the pattern leaves them out. head_dim: that of
    `attn` if it has one, else 64. value_dim: likewise, else head_dim. sink:
    float32 [heads], for a pattern with `learned_sink`; that of `attn` if left out. max_keys: enough for the pattern's
    longest term, between 300 and 1,100, if left out; a term too long for it is warned of, for then nothing shows where
    it ends. Errors are held to the tolerance policy; `probes` moreover counts the visible keys exactly, and has NaN in
    keys and values that no query sees: dense masked attention does not pass, unless it selects before it multiplies,
    for 0 times NaN is NaN. lse: false for attention that gives its output alone, and is called without `return_lse`.
    gradients: also holds gradients of q, k and v, and of a sink and `key_bias`, through the output and the LSE if there
    is one, to float64 autograd; `sink` has to be a leaf that requires grad then. dtype, seeds: of several each dtype is
    checked with each seed, which draws other shapes and inputs; one seed draws the same in every run. Raises CallError
    for bad arguments.
    """
    __tracebackhide__ = True  # pytest shows the caller's line, and that of `attn` which raised
    if not callable(attn):
        raise CallError(f"expected attention as a callable, got {attn!r:.80}")
    if not isinstance(pattern, Pattern | ResolvedPattern):
        raise CallError(f"expected a Pattern, as Program.pattern() gives it, or resolved, got {pattern!r:.80}")
    meaning = pattern if isinstance(pattern, ResolvedPattern) else pattern.resolve(heads, kv_heads)
    width: int = head_dim if head_dim is not None else getattr(attn, "head_dim", 64)
    most = max_keys if max_keys is not None else min(LONG, past_longest(meaning))
    integer("head_dim", width, 1)
    of_values = integer("value_dim", value_dim if value_dim is not None else getattr(attn, "value_dim", width), 1)
    integer("max_keys", most, 1)
    dtypes = (dtype,) if isinstance(dtype, torch.dtype) or not isinstance(dtype, Sequence) else tuple(dtype)
    if not dtypes or any(each not in DTYPES for each in dtypes):
        raise CallError(f"expected dtype torch.float16, bfloat16, float32 or float64, got {dtype!r:.80}")
    numbers = tuple(seeds) if isinstance(seeds, Sequence) and seeds else (seeds,)
    drawn_by = [integer("seeds", each, 0) for each in numbers]
    _check_device(device)
    score = meaning.score
    logits = None
    if score.learned:
        logits = _sink(meaning, sink if sink is not None else getattr(attn, "sink", None), leaf=gradients)
    if longest_term(meaning) >= most:
        warnings.warn(
            f"a term of the pattern is {longest_term(meaning)} tokens long: up to {most} keys do not show where it "
            "ends; max_keys= draws more",
            stacklevel=2,
        )
    for each in dtypes:
        for seed in drawn_by:
            run = _Run(attn, meaning, width, of_values, each, device, logits, probes, lse, gradients)
            run.search(most, examples, seed, told=len(dtypes) * len(drawn_by) > 1)


@dataclass(slots=True)
class _Run:
    """One sweep over cases, of one dtype."""

    attn: Any
    meaning: ResolvedPattern
    width: int
    of_values: int
    dtype: torch.dtype
    device: torch.device | str
    sink: Tensor | None
    probes: bool
    lse: bool
    gradients: bool
    raised: Exception | None = None

    def search(self, most: int, examples: int, seed: int, *, told: bool) -> None:
        """Raises what the smallest case that fails raises; told: names the seed."""
        search = Search(self.check)
        search.over(aligned_cases(self.meaning, most), examples=examples, seed=seed)
        if search.case is None or search.error is None:
            return
        dims = f"head_dim {self.width}, value_dim {self.of_values}"
        of_seed = f", seed {seed}" if told else ""
        where = f"{search.case.described}, {dims}, {self.dtype}{of_seed}{search.again}\n{sparse_text(self.meaning)}"
        if isinstance(search.error, AssertionError) and search.error is not self.raised:
            raise AssertionError(f"{search.error}\n{where}")
        search.error.add_note(where)
        raise search.error

    def check(self, case: Case) -> None:
        meaning, score = self.meaning, self.meaning.score
        inputs, bounds = case.inputs(meaning, self.width, self.of_values, self.dtype), case.cu_seqlens
        given = case.given(meaning)
        if self.gradients and (biased := meaning.score.get(KeyBias)) is not None:
            name = meaning.inputs[biased.ordinal].name
            given = {**given, name: _leaf(given[name])}
        visible = mask(meaning, case.queries, case.keys, cu_seqlens=bounds, inputs=given)
        bias = key_bias_in(meaning, given)
        tensors = inputs.q, inputs.k, inputs.v
        more: dict[str, Any] = {}
        if bounds is not None:
            more["cu_seqlens"] = torch.tensor(bounds, dtype=torch.int32, device=self.device)
        if meaning.inputs:
            more["inputs"] = {name: _on(self.device, value) for name, value in given.items()}
        attend = partial(self.attend, more, visible, bias)
        with torch.no_grad():
            if self.probes:
                sink = _held(self.sink)
                check_forward(attend, *tensors, visible, score, sink=sink, key_bias=bias, apart=bool(more))
            elif not self.gradients:
                wanted = expected_attention(*tensors, visible, score, sink=_held(self.sink), key_bias=bias)
                assert_close(*attend(*tensors), wanted, visible)
        if self.gradients:
            check_gradients(
                *(attend, *tensors, visible, score),
                sink=self.sink,
                key_bias=bias,
                through_lse=self.lse,
                probes=self.probes,
            )

    def attend(
        self, more: dict[str, Any], visible: Tensor, bias: Tensor | None, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the callable gives, on the CPU; the exact LSE where it gives none."""
        q, k, v = (t.to(self.device) for t in tensors)
        try:
            if self.lse:
                returned: object = self.attn(q, k, v, return_lse=True, **more)
            else:
                returned = self.attn(q, k, v, **more)
        except Exception as error:
            if self.lse and isinstance(error, TypeError) and "return_lse" in str(error):
                error.add_note("lse=False checks attention that takes no `return_lse`, by its output alone")
            self.raised = error
            raise
        if self.lse:
            out, sums = out_and_lse(returned, q, self.of_values)
            return out.cpu(), sums.cpu()
        if isinstance(returned, tuple | list):
            raise AssertionError("expected the output alone, for lse=False, got several tensors")
        with torch.no_grad():
            queries, keys = (t.detach().cpu().double() for t in (q, k.nan_to_num()))
            score, sink = self.meaning.score, _held(self.sink)
            held = None if bias is None else bias.detach()
            _, exact = attention(queries, keys, keys, visible, score, sink=sink, key_bias=held)
        sums = exact.to(torch.float64 if q.dtype == torch.float64 else torch.float32)
        out, _ = out_and_lse((returned, sums.to(q.device)), q, self.of_values)
        return out.cpu(), sums


def _held(sink: Tensor | None) -> Tensor | None:
    return None if sink is None else sink.detach().cpu()


def _leaf(weights: object) -> Tensor:
    assert isinstance(weights, Tensor), "weights are one tensor"
    return weights.detach().clone().requires_grad_()


def _on(device: torch.device | str, value: Tensor | tuple[Tensor, Tensor]) -> Tensor | tuple[Tensor, ...]:
    return value.to(device) if isinstance(value, Tensor) else tuple(each.to(device) for each in value)


def _check_device(device: torch.device | str) -> None:
    try:
        torch.zeros(1).to(device).cpu()
    except Exception as error:  # torch has a type for each way in which a device may be missing
        raise CallError(f"expected a device that is available, got {device!r:.80}") from error


def _sink(meaning: ResolvedPattern, sink: object, *, leaf: bool) -> Tensor:
    """On the CPU, without gradients; or as it is, if it is to be a leaf."""
    if not isinstance(sink, Tensor) or sink.shape != (meaning.heads,):
        given = list(sink.shape) if isinstance(sink, Tensor) else repr(sink)[:80]
        raise CallError(f"expected sink= as a tensor [{meaning.heads}], for a pattern with learned_sink, got {given}")
    if not leaf:
        return sink.detach().cpu()
    if not sink.requires_grad or not sink.is_leaf:
        raise CallError("expected sink= as the leaf that the attention reads, with requires_grad, for gradients")
    return sink
