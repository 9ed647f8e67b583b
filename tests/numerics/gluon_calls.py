"""A call of a Gluon kernel on the model, with whatever its pattern asks for, against dense float64 attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import gluon_model
import pytest
import torch
from torch import Tensor

from sparsec.backends.gluon import kernel as gluon
from sparsec.backends.gluon.kernel import GluonKernel
from sparsec.pipeline import Compilation, Lowered
from sparsec.plan.target import GLUON
from sparsec.reference import mask
from sparsec.reference.attention import attention
from sparsec.reference.parts import InputTensors
from sparsec.runtime.draws import draw_tables
from sparsec.runtime.inputs.prepare import CallShape, by_input, key_bias_of, prepared
from sparsec.sema.model import ResolvedPattern
from sparsec.testing.cases import Case
from sparsec.testing.inputs import key_bias_in

Given = Mapping[str, InputTensors]


def beside_triton(
    pattern: ResolvedPattern,
    monkeypatch: pytest.MonkeyPatch,
    *,
    dims: tuple[int, int] = (16, 16),
    seed: int = 3,
    edit: Callable[[str], str] = lambda text: text,
) -> GluonKernel:
    """The kernel, in Triton's interpreter where its kernels are Triton's; `edit` changes the text of Gluon's."""
    honest = gluon.load_module

    def load(text: str) -> object:
        return gluon_model.load(edit(text), seed) if "@gluon.jit" in text else honest(text)

    monkeypatch.setattr(gluon, "load_module", load)
    return GluonKernel.of(Compilation(Lowered(pattern), *dims, "bfloat16", GLUON).forward)


def call_agrees(
    kernel: GluonKernel,
    pattern: ResolvedPattern,
    case: Case,
    given: Given,
    tensors: tuple[Tensor, ...] | None = None,
    bad: Tensor | None = None,
) -> Tensor:
    """Checks the rows that see none of the `bad` keys, which are NaN in `tensors` alone; returns which these are."""
    plan = kernel.plan
    drawn = case.inputs(pattern, plan.head_dim, plan.value_dim, torch.bfloat16)
    q, k, v = (drawn.q, drawn.k, drawn.v) if tensors is None else tensors
    sink = torch.linspace(-1.0, 2.0, pattern.heads) if pattern.score.learned else None
    flat = [t for value in given.values() for t in (value if isinstance(value, tuple) else (value,))]
    of_inputs = by_input(plan.declared, flat, Tensor.dim)
    shape = CallShape(case.queries, case.keys, case.offset)
    ordinal = None if (bias := key_bias_in(pattern, given)) is None else [*given].index(_name_of(given, bias))
    out, lse = kernel.forward(
        *(q, k, v),
        q_offset=case.offset,
        lists=draw_tables(plan.lists, case.queries, case.offset, q.device),
        sink=sink,
        cu_seqlens=torch.tensor(case.bounds, dtype=torch.int32) if case.bounds else None,
        inputs=prepared(plan.of_inputs, of_inputs, shape, plan.ordered),
        key_bias=key_bias_of(ordinal, plan.declared, flat),
    )
    at = None if case.bounds else case.offset
    seen = mask(pattern, case.queries, case.keys, at, cu_seqlens=case.cu_seqlens, inputs=given if given else None)
    seen = seen.expand(case.batch, -1, -1, -1)
    kept = torch.ones(seen.shape[:-1], dtype=torch.bool) if bad is None else ~seen[..., bad].any(-1)
    k, v = (torch.nan_to_num(each) for each in (k, v))
    wanted, wanted_lse = attention(q, k, v, seen, pattern.score, sink=sink, key_bias=bias, q_offset=case.offset)
    assert out.dtype == q.dtype and lse.dtype == torch.float32
    step = 8e-3 * (1.0 + float(v.abs().amax() if v.numel() else 0.0))
    torch.testing.assert_close(out.double()[kept], wanted[kept], rtol=0.0, atol=step)
    torch.testing.assert_close(lse.double()[kept], wanted_lse[kept], rtol=1e-5, atol=5e-5)
    assert bad is None or out[~kept].isnan().any()
    return kept


def _name_of(given: Given, tensor: Tensor) -> str:
    return next(name for name, value in given.items() if value is tensor)
