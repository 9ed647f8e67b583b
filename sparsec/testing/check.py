"""Any callable that attends, compared with the meaning of a pattern over drawn shapes and inputs."""

from __future__ import annotations

import warnings
from typing import Protocol

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsec.diagnostics.model import CallError
from sparsec.program import Pattern
from sparsec.reference.mask import mask
from sparsec.sema.model import Documents, Heads
from sparsec.testing.cases import longest_term, past_longest
from sparsec.testing.probes import check_forward
from sparsec.testing.strategies import Shape, attention_inputs, document_bounds, shapes
from sparsec.testing.text import sparse_text
from sparsec.testing.tolerance import assert_close, expected_attention

LONG = 1100
"""Keys at most where `max_keys` is left out: the reference is dense."""


class Attention(Protocol):
    """q [B, H, Nq, D], k and v [B, G, Nk, D] -> (out, LSE); cu_seqlens is passed for patterns with documents alone."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, /, *, return_lse: bool) -> tuple[Tensor, Tensor]: ...


def check_attention(
    attn: Attention,
    pattern: Pattern | Heads,
    *,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    sink: Tensor | None = None,
    probes: bool = False,
    examples: int = 50,
    max_keys: int | None = None,
) -> None:
    """Raises AssertionError with the smallest failing case if `attn` is not the attention that `pattern` means.

    The last query sees the last key (q_offset is Nk - Nq, at least 0). heads, kv_heads: where the pattern leaves them
    out. head_dim: that of `attn` if it has one, else 64. sink: float32 [heads], for a pattern with `learned_sink`; that
    of `attn` if left out. max_keys: enough for the pattern's longest term, between 300 and 1,100, if left out; a term
    too long for it is warned of, for then nothing shows where it ends. Errors are held to the tolerance policy;
    `probes` moreover counts the visible keys exactly, and has NaN in keys and values that no query sees. Shapes and
    inputs are the same in every run.
    """
    meaning = pattern if isinstance(pattern, Heads) else pattern.resolve(heads, kv_heads)
    width: int = head_dim if head_dim is not None else getattr(attn, "head_dim", 64)
    score, packed = meaning.score, meaning.documents is not Documents.NONE
    logits = sink if sink is not None else getattr(attn, "sink", None)
    if score.learned_sink and logits is None:
        raise CallError("expected sink= for a pattern with learned_sink, got none")
    most = max_keys if max_keys is not None else min(LONG, past_longest(meaning))
    if longest_term(meaning) >= most:
        warnings.warn(
            f"a term of the pattern is {longest_term(meaning)} tokens long: up to {most} keys do not show where it "
            "ends; max_keys= draws more",
            stacklevel=2,
        )
    logits = logits.detach().cpu() if logits is not None and score.learned_sink else None

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def check(data: st.DataObject) -> None:
        n_k = max(1, data.draw(shapes(max_keys=most)).n_k)
        n_q = n_k if packed else data.draw(st.one_of(st.just(n_k), st.integers(1, n_k)))
        bounds = data.draw(document_bounds(n_k)) if packed else None
        drawn = attention_inputs(
            *(meaning.heads, meaning.kv_heads, Shape(n_q, n_k, n_k - n_q)),
            head_dim=width,
            dtype=dtype,
            max_batch=1 if packed else 2,
        )
        inputs = data.draw(drawn)
        more = {} if bounds is None else {"cu_seqlens": torch.tensor(bounds, dtype=torch.int32, device=device)}

        def attend(*given: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                out, lse = attn(*(t.to(device) for t in given), return_lse=True, **more)
            return out.cpu(), lse.cpu()

        visible = mask(meaning, n_q, n_k, cu_seqlens=bounds)
        tensors = inputs.q, inputs.k, inputs.v
        try:
            if probes:
                check_forward(attend, *tensors, visible, score, sink=logits, packed=packed)
            else:
                assert_close(*attend(*tensors), expected_attention(*tensors, visible, score, sink=logits))
        except AssertionError as error:
            case = f"batch {inputs.q.shape[0]}, {n_q} queries, {n_k} keys, head_dim {width}, {dtype}"
            documents = "" if bounds is None else f", cu_seqlens {list(bounds)}"
            raise AssertionError(f"{error}\n{case}{documents}\n{sparse_text(meaning)}") from None

    try:
        check()
    except AssertionError as error:
        error.__notes__ = []  # hypothesis lists what was drawn, tensors too; the message has the case
        raise
