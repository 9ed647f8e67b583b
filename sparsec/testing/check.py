"""Any callable that attends, compared with the meaning of a pattern over drawn shapes and inputs."""

from __future__ import annotations

import warnings
from typing import Any, Protocol

import torch
from torch import Tensor

from sparsec.diagnostics.arguments import integer
from sparsec.diagnostics.model import CallError
from sparsec.program import Pattern
from sparsec.reference.mask import mask
from sparsec.sema.model import ResolvedPattern
from sparsec.sema.printer import sparse_text
from sparsec.testing.cases import Case, aligned_cases, longest_term, past_longest
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


def check_attention(
    attn: Attention,
    pattern: Pattern | ResolvedPattern,
    *,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    value_dim: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    sink: Tensor | None = None,
    probes: bool = False,
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
    for 0 times NaN is NaN. Shapes and inputs are the same in every run. Raises CallError for bad arguments.
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
    if dtype not in DTYPES:
        raise CallError(f"expected dtype torch.float16, bfloat16, float32 or float64, got {dtype!r:.80}")
    _check_device(device)
    score = meaning.score
    logits = _sink(meaning, sink if sink is not None else getattr(attn, "sink", None)) if score.learned else None
    if longest_term(meaning) >= most:
        warnings.warn(
            f"a term of the pattern is {longest_term(meaning)} tokens long: up to {most} keys do not show where it "
            "ends; max_keys= draws more",
            stacklevel=2,
        )
    raised: Exception | None = None

    def check(case: Case) -> None:
        inputs, bounds = case.inputs(meaning, width, of_values, dtype), case.cu_seqlens
        more: dict[str, Any] = {}
        if bounds is not None:
            more["cu_seqlens"] = torch.tensor(bounds, dtype=torch.int32, device=device)
        given = case.given(meaning)
        if meaning.inputs:
            more["inputs"] = {name: _on(device, value) for name, value in given.items()}

        def attend(*tensors: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal raised
            q, k, v = (t.to(device) for t in tensors)
            try:
                with torch.no_grad():
                    returned: object = attn(q, k, v, return_lse=True, **more)
            except Exception as error:
                raised = error
                raise
            out, lse = out_and_lse(returned, q, of_values)
            return out.cpu(), lse.cpu()

        visible = mask(meaning, case.queries, case.keys, cu_seqlens=bounds, inputs=given)
        bias = key_bias_in(meaning, given)
        tensors = inputs.q, inputs.k, inputs.v
        if probes:
            check_forward(attend, *tensors, visible, score, sink=logits, key_bias=bias, apart=bool(more))
        else:
            wanted = expected_attention(*tensors, visible, score, sink=logits, key_bias=bias)
            assert_close(*attend(*tensors), wanted, visible)

    search = Search(check)
    search.over(aligned_cases(meaning, most), examples=examples)
    if search.case is None or search.error is None:
        return
    dims = f"head_dim {width}, value_dim {of_values}"
    where = f"{search.case.described}, {dims}, {dtype}{search.again}\n{sparse_text(meaning)}"
    if isinstance(search.error, AssertionError) and search.error is not raised:
        raise AssertionError(f"{search.error}\n{where}")
    search.error.add_note(where)
    raise search.error


def _on(device: torch.device | str, value: Tensor | tuple[Tensor, Tensor]) -> Tensor | tuple[Tensor, ...]:
    return value.to(device) if isinstance(value, Tensor) else tuple(each.to(device) for each in value)


def _check_device(device: torch.device | str) -> None:
    try:
        torch.zeros(1).to(device).cpu()
    except Exception as error:  # torch has a type for each way in which a device may be missing
        raise CallError(f"expected a device that is available, got {device!r:.80}") from error


def _sink(meaning: ResolvedPattern, sink: object) -> Tensor:
    """On the CPU, without gradients."""
    if not isinstance(sink, Tensor) or sink.shape != (meaning.heads,):
        given = list(sink.shape) if isinstance(sink, Tensor) else repr(sink)[:80]
        raise CallError(f"expected sink= as a tensor [{meaning.heads}], for a pattern with learned_sink, got {given}")
    return sink.detach().cpu()
