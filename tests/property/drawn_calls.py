"""Calls of attention as the properties draw them: a text, its meaning, a shape and tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vacuity import Coverage

import sparsec
from sparsec.backends.base import CachedKernel, Kernels
from sparsec.backends.cpu.backward import build_backwards
from sparsec.backends.cpu.kernel import build_kernels
from sparsec.pipeline import Lowered
from sparsec.reference.mask import mask
from sparsec.runtime.build.cache import build_key
from sparsec.runtime.compile import module_of
from sparsec.runtime.kernel import LoadedKernel
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.request import Request, kernel_name
from sparsec.sema.model import Documents, InputDecl, InputUnit, ResolvedPattern
from sparsec.testing import attention_inputs, document_bounds, shapes
from sparsec.testing.drawn import Source
from sparsec.testing.gradients import check_gradients
from sparsec.testing.inputs import InputTensors, drawn_inputs, key_bias_in
from sparsec.testing.probes import Attend, check_forward
from sparsec.testing.strategies import Inputs, Shape, sources_with_meaning

KINDS = (
    *("plain", "softcap", "alibi", "learned_sink", "documents", "documents restart"),
    *("document of 0", "document of 1", "bound within a tile"),
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
EVERY_DTYPE = ("float32", "float32", "bfloat16", "float16")
"""float32 twice as often: it is where errors show best."""


@dataclass(frozen=True, slots=True)
class Call:
    source: Source
    pattern: ResolvedPattern
    shape: Shape
    inputs: Inputs
    cu_seqlens: tuple[int, ...] | None
    given: dict[str, InputTensors]
    """What the pattern's run-time inputs are."""

    @property
    def visible(self) -> torch.Tensor:
        """The reference's mask, bool [heads, n_q, n_k]; of a pattern with run-time inputs with their batch before."""
        shape = self.shape
        return mask(
            self.pattern, shape.n_q, shape.n_k, shape.q_offset, cu_seqlens=self.cu_seqlens, inputs=self.given or None
        )

    @property
    def bias(self) -> torch.Tensor | None:
        """The weights of its keys, a leaf that takes gradients."""
        weights = key_bias_in(self.pattern, self.given)
        return None if weights is None else weights.requires_grad_()

    @property
    def apart(self) -> bool:
        """Whether no other sequences can join those of the call."""
        return self.cu_seqlens is not None or bool(self.given)

    @property
    def lengths(self) -> torch.Tensor | None:
        return None if self.cu_seqlens is None else torch.tensor(self.cu_seqlens, dtype=torch.int32)


@st.composite
def calls(
    draw: st.DrawFn,
    max_queries: int,
    max_keys: int,
    head_dims: tuple[int, ...],
    dtypes: tuple[str, ...],
    *,
    value_dims: tuple[int, ...] = (),
    blocks: tuple[int, ...] = (16, 32, 64),
    max_batch: int = 2,
    run_time: bool = False,
) -> Call:
    """Patterns may have score modifiers, a learned sink, and documents with drawn bounds; `run_time`: and inputs.

    Values are as wide as keys in half of the calls, and in all without `value_dims`.
    """
    source, pattern = draw(sources_with_meaning(blocks=blocks, scored=True, inputs=run_time))
    shape, cu_seqlens = draw(shapes(max_queries=max_queries, max_keys=max_keys)), None
    if pattern.documents is not Documents.NONE:
        length = max(1, min(shape.n_k, 3 * max_queries // 2))
        shape, max_batch, cu_seqlens = Shape(length, length, 0), 1, draw(document_bounds(length))
    dtype, head_dim = DTYPES[draw(st.sampled_from(dtypes))], draw(st.sampled_from(head_dims))
    value_dim = draw(st.sampled_from(value_dims)) if value_dims and draw(st.booleans()) else head_dim
    counts, dims = (pattern.heads, pattern.kv_heads), {"head_dim": head_dim, "value_dim": value_dim}
    inputs = draw(attention_inputs(*counts, shape, **dims, dtype=dtype, max_batch=max_batch))
    sizes = {"n_q": shape.n_q, "n_k": shape.n_k, "q_offset": shape.q_offset}
    given = drawn_inputs(pattern, batch=inputs.q.shape[0], **sizes, seed=draw(st.integers(0, 2**20)) if run_time else 0)
    return Call(source, pattern, shape, inputs, cu_seqlens, given)


class Found(Coverage):
    """Counts the kinds of calls that were drawn, each pattern once."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: Counter[str] = Counter()

    def note_call(self, call: Call) -> None:
        if call.source.text in self.patterns:
            return
        self.note(call.source.text, call.visible)
        score, documents, bounds = call.pattern.score, call.pattern.documents, call.cu_seqlens or ()
        kinds = {modifier.entry.keyword for modifier in score.modifiers} | {
            form_of(decl) for decl in call.pattern.inputs
        }
        if documents is not Documents.NONE:
            kinds.add(documents.value)
        sizes = [stop - start for start, stop in pairwise(bounds)]
        kinds |= {f"document of {size}" for size in (0, 1) if size in sizes}
        if any(bound % 16 for bound in bounds[1:-1]):
            kinds.add("bound within a tile")
        self.kinds.update(kinds or {"plain"})
        self.kinds[str(call.inputs.q.dtype)] += 1

    def check_kinds(self, patterns: int, dtypes: tuple[str, ...]) -> None:
        """`check`, and at least one pattern in twenty of each kind and of each of the dtypes."""
        self.check(patterns)
        for kind in (*KINDS, *(f"torch.{dtype}" for dtype in dtypes)):
            assert self.kinds[kind] >= patterns // 20, f"{kind} is drawn too seldom: {self.kinds}"


def form_of(decl: InputDecl) -> str:
    """Its kind and unit, as a text has them."""
    return decl.kind.value + f"({decl.unit.value})" * (decl.unit is not InputUnit.TOKENS)


def check_forward_of(module: SparseAttention, call: Call) -> None:
    check_forward(
        attend_of(module, call),
        *(call.inputs.q, call.inputs.k, call.inputs.v, call.visible, call.pattern.score),
        sink=module.sink,
        key_bias=call.bias,
        q_offset=call.shape.q_offset,
        apart=call.apart,
    )


def check_gradients_of(module: SparseAttention, call: Call) -> None:
    check_gradients(
        attend_of(module, call),
        *(call.inputs.q, call.inputs.k, call.inputs.v, call.visible, call.pattern.score),
        sink=module.sink,
        key_bias=call.bias,
        q_offset=call.shape.q_offset,
        through_lse=call.shape.n_q % 4 != 0,
    )


def check_named(check: Callable[[SparseAttention, Call], None], module: SparseAttention, call: Call) -> None:
    """An AssertionError tells the call."""
    try:
        check(module, call)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{described(call)}") from error


def described(call: Call) -> str:
    q, v = call.inputs.q, call.inputs.v
    counts = f"heads {call.source.heads} kv {call.source.kv_heads}, batch {q.shape[0]}"
    dims = f"head_dim {q.shape[3]}, value_dim {v.shape[3]}, {q.dtype}"
    return f"{call.source.text}{counts}, {dims}, {call.shape}, cu_seqlens {call.cu_seqlens}"


def chosen_calls(strategy: st.SearchStrategy[Call], count: int) -> list[Call]:
    """`count` calls of different patterns, drawn before any runs; at least four in five with rows that see a part.

    For targets where a kernel costs seconds: what hypothesis repeats costs nothing, and a failing call is not shrunk.
    """
    telling: dict[str, Call] = {}
    others: dict[str, Call] = {}

    @settings(max_examples=4 * count)
    @given(strategy)
    def draw(call: Call) -> None:
        seen = call.visible.double().mean(dim=-1)
        part = ((seen > 0) & (seen < 1)).double().mean()
        (telling if part > 0.3 else others).setdefault(call.source.text, call)

    draw()
    mixed = [*list(telling.values())[: count * 4 // 5], *others.values(), *telling.values()]
    return list({call.source.text: call for call in mixed}.values())[:count]


def module_for(call: Call, target: str) -> SparseAttention:
    """Through the front door: the text is parsed, and the mask comes from a pattern that no parser has seen."""
    return with_sink(
        sparsec.compile(
            call.source.text,
            heads=call.source.heads,
            kv_heads=call.source.kv_heads,
            head_dim=call.inputs.q.shape[3],
            value_dim=call.inputs.v.shape[3],
            dtype=call.inputs.q.dtype,
            target=target,
            device="cpu",
        )
    )


def cpu_modules(part: list[Call], *, gradients: bool = False, optimise: int = 1) -> list[SparseAttention]:
    """Several patterns a library, built with little optimisation: what is tested is the text, not the compiler."""
    requests = [
        Request(Lowered(call.pattern), call.inputs.q.shape[3], call.inputs.v.shape[3], call.inputs.q.dtype)
        for call in part
    ]
    compilations = [request.compilation("cpu") for request in requests]
    kernels = build_kernels([of.forward for of in compilations], optimise=optimise)
    plans = [of.backward for of in compilations] if gradients else []
    backwards = build_backwards(plans, optimise=optimise) if gradients else [None] * len(part)
    modules = []
    for request, of, kernel, backward in zip(requests, compilations, kernels, backwards, strict=True):
        name = kernel_name(request, "cpu", build_key(kernel.source, str(gradients)))
        made = Kernels(kernel, lambda backward=backward: backward, _no_cache)  # type: ignore[misc]
        loaded = LoadedKernel(made, kernel.plan, lambda plan=of.forward: plan)  # type: ignore[misc]
        modules.append(with_sink(module_of("cpu", name, loaded, request)))
    return modules


def _no_cache() -> CachedKernel:
    raise AssertionError("a call of its own needs no cache")


def with_sink(module: SparseAttention) -> SparseAttention:
    """The module with a learned sink, if it has one, that is not zero."""
    if module.sink is not None:
        with torch.no_grad():
            module.sink.copy_(torch.linspace(-1.0, 1.5, module.heads))
    return module


def attend_of(module: SparseAttention, call: Call) -> Attend:
    offset = None if call.lengths is not None else call.shape.q_offset
    given = call.given or None
    return lambda q, k, v: module(q, k, v, q_offset=offset, return_lse=True, cu_seqlens=call.lengths, inputs=given)
