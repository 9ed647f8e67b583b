"""A compiled pattern -> whether its properties hold over drawn cases, and of each that does not the smallest case.

Properties: output and LSE, the exact probes, the gradients, and a walk through the KV cache. Invariant: what is right
comes from the reference alone; a failure names a case that fails again when it is run by itself.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.func import functional_call

from sparsec.backends import registry
from sparsec.diagnostics.model import CallError, DiagnosticError
from sparsec.reference.mask import mask
from sparsec.reference.parts import InputTensors, inputs_of_part
from sparsec.runtime.module import SparseAttention
from sparsec.sema.inputs import settled
from sparsec.sema.model import InputKind, ResolvedPattern
from sparsec.sema.shapes import Sizes
from sparsec.testing.cases import CHECKS, PAIRS, Case, cases
from sparsec.testing.contents import Contents
from sparsec.testing.gradients import check_gradients
from sparsec.testing.inputs import key_bias_in
from sparsec.testing.probes import Attend, check_forward
from sparsec.testing.search import Report, Search
from sparsec.testing.strategies import Inputs
from sparsec.testing.tolerance import Expected, assert_close, expected_attention, out_and_lse

SHRINKING_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What is tested: `attn` against the meaning of `pattern`, which it was compiled from."""

    pattern: ResolvedPattern
    attn: SparseAttention
    device: torch.device
    sink: Tensor | None = None
    """The learned sink that every call has, on the CPU; None if the pattern has none."""
    contents: Mapping[str, Contents] = field(default_factory=dict)
    """What inputs hold, by name; drawn as `Case.given` does where nothing is said."""

    @classmethod
    def of(
        cls,
        pattern: ResolvedPattern,
        attn: SparseAttention,
        device: torch.device,
        contents: Mapping[str, Contents] | None = None,
    ) -> Subject:
        """With a learned sink, if there is one, that differs from head to head. Raises as `check_runs` does."""
        check_runs(attn.target, device)
        sink = torch.linspace(-1.0, 1.5, pattern.heads).requires_grad_() if pattern.score.learned else None
        return cls(pattern, attn, device, sink, contents or {})

    def visible(self, case: Case) -> Tensor:
        """The reference's mask, bool [heads, queries, keys]."""
        given = self.given(case)
        return mask(self.pattern, case.queries, case.keys, case.offset, cu_seqlens=case.cu_seqlens, inputs=given)

    def given(self, case: Case) -> dict[str, InputTensors] | None:
        """The inputs of a case, on the CPU; None for a pattern without."""
        pattern = self.pattern
        if not pattern.inputs:
            return None
        if not self.contents:
            return case.given(pattern)
        sizes = Sizes(case.batch, pattern.heads, pattern.kv_heads, case.queries, case.keys, case.keys, case.offset)
        drawn: dict[str, InputTensors] = {}
        for decl in settled(pattern.inputs, pattern.block):
            of = self.contents[decl.name]
            drawn[decl.name] = replace(of, seed=of.seed + case.seed).drawn(decl, sizes, pattern.block)
        return drawn

    def moved(self, given: Mapping[str, InputTensors]) -> dict[str, InputTensors]:
        """The inputs on the device."""
        return {
            name: value.to(self.device)
            if isinstance(value, Tensor)
            else (value[0].to(self.device), value[1].to(self.device))
            for name, value in given.items()
        }

    def inputs(self, case: Case) -> Inputs:
        attn = self.attn
        return case.inputs(self.pattern, attn.head_dim, attn.value_dim, attn.dtype)

    def attend(self, case: Case, given: Mapping[str, InputTensors] | None) -> Attend:
        """A call of the module with these inputs as a function of tensors on the CPU, differentiable."""
        more: dict[str, object] = {}
        offset = None if case.bounds else case.offset
        if case.bounds:
            more["cu_seqlens"] = torch.tensor(case.bounds, dtype=torch.int32, device=self.device)
        if given is not None:
            more["inputs"] = self.moved(given)

        def call(*qkv: Tensor) -> tuple[Tensor, Tensor]:
            out, lse = self.call(*qkv, q_offset=offset, **more)
            return out, lse

        return call

    def call(self, *qkv: Tensor, **more: object) -> tuple[Tensor, Tensor]:
        parameters = {} if self.sink is None else {"sink": self.sink.to(self.device)}
        moved = tuple(t.to(self.device) for t in qkv)
        returned = functional_call(self.attn, parameters, moved, {"return_lse": True, **more})
        out, lse = out_and_lse(returned, moved[0], self.attn.value_dim)
        return out.cpu(), lse.cpu()


def check_runs(target: str, device: torch.device) -> None:
    """Raises CallError for a target that cannot run there: no property of a pattern would be at fault."""
    if not registry.BACKENDS[target].oracle:
        registry.backend(target).check_runs(device)


@dataclass(frozen=True, slots=True)
class Failure:
    """`case`: the smallest that was found; `message`: what differs."""

    case: Case
    message: str


@dataclass(frozen=True, slots=True)
class Result:
    """Of one property: the cases run up to its first failure, and the seconds with shrinking.

    `keys`: the most of any case. `absent`: why the property does not apply, else empty.
    """

    check: str
    examples: int = 0
    keys: int = 0
    seconds: float = 0.0
    failure: Failure | None = None
    absent: str = ""
    partial: bool = False
    """Whether some row saw a part of the keys: if none did, little was tested."""


def verify(subject: Subject, *, examples: int, seed: int = 0, report: Report = lambda _: None) -> tuple[Result, ...]:
    """Every property over `examples` drawn cases each; the same seed draws the same cases."""
    return tuple(verify_one(subject, check, examples=examples, seed=seed, report=report) for check in CHECKS)


def verify_one(
    subject: Subject, check: str, *, examples: int, seed: int = 0, report: Report = lambda _: None
) -> Result:
    """One property, a name among `cases.CHECKS`."""
    if absent := _absent(subject, check):
        return Result(check, absent=absent)
    started, partial = time.perf_counter(), False

    def check_case(case: Case) -> None:
        nonlocal partial
        partial = partial or _sees_a_part(subject, case)
        _check(subject, case)

    search = Search(check_case, lambda text: report(f"{check}, {text} of {examples}"), SHRINKING_SECONDS)
    search.over(cases(check, subject.pattern), examples=examples, seed=seed)
    failure = None
    if search.case is not None and search.error is not None:
        failure = Failure(search.case, _message(search.error) + search.again)
    seconds = time.perf_counter() - started
    return Result(check, search.examples, search.keys, seconds, failure, partial=partial)


def run_case(subject: Subject, case: Case) -> Result:
    """One case by itself. Raises CallError for one that does not fit the pattern."""
    if bool(case.bounds) != subject.attn.documents:
        expected = "bounds, for a pattern with documents" if subject.attn.documents else "no bounds"
        raise CallError(f"expected a case with {expected}, got {case}")
    if not case.chunks:
        subject.visible(case)  # what the reference refuses is no failure of the kernel
    if absent := _absent(subject, case.check):
        raise CallError(f"expected a property of this pattern, got {case.check}: {absent}")
    started = time.perf_counter()
    failure = None
    try:
        _check(subject, case)
    except Exception as error:
        failure = Failure(case, _message(error))
    return Result(case.check, 1, case.keys, time.perf_counter() - started, failure, partial=True)


def _absent(subject: Subject, check: str) -> str:
    if check != "cache":
        return ""
    if subject.attn.documents:
        return "a pattern with documents has no cache"
    try:
        return "" if subject.attn.layout else "no cache"
    except DiagnosticError as error:
        return error.diagnostics[0].message


def _sees_a_part(subject: Subject, case: Case) -> bool:
    if case.chunks and not subject.pattern.inputs:
        visible = mask(subject.pattern, case.chunks[-1], case.keys)
    else:
        visible = subject.visible(case)
    seen = visible.sum(dim=-1)
    return bool(((seen > 0) & (seen < case.keys)).any())


def _check(subject: Subject, case: Case) -> None:
    """Raises AssertionError with what differs; whatever else a valid call raises is a failure of the property too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a cache grows, or that an operator of torch is not deterministic
        _RUN[case.check](subject, case)


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"


def _forward(subject: Subject, case: Case) -> None:
    drawn, given = subject.inputs(case), subject.given(case)
    qkv, visible = (drawn.q, drawn.k, drawn.v), subject.visible(case)
    with torch.no_grad():
        out, lse = subject.attend(case, given)(*qkv)
        sink = None if subject.sink is None else subject.sink.detach()
        bias = key_bias_in(subject.pattern, given)
        want = expected_attention(*qkv, visible, subject.pattern.score, sink=sink, key_bias=bias, q_offset=case.offset)
    assert_close(out, lse, want, visible)


def _probes(subject: Subject, case: Case) -> None:
    drawn, given = subject.inputs(case), subject.given(case)
    check_forward(
        subject.attend(case, given),
        *(drawn.q, drawn.k, drawn.v, subject.visible(case), subject.pattern.score),
        sink=subject.sink,
        key_bias=key_bias_in(subject.pattern, given),
        q_offset=case.offset,
        apart=bool(case.bounds or subject.pattern.inputs),
        within_tolerance=False,
    )


def _gradients(subject: Subject, case: Case) -> None:
    drawn, given = subject.inputs(case), subject.given(case)
    bias = key_bias_in(subject.pattern, given)
    check_gradients(
        subject.attend(case, given),
        *(drawn.q, drawn.k, drawn.v, subject.visible(case), subject.pattern.score),
        sink=subject.sink,
        key_bias=None if bias is None else bias.requires_grad_(),
        q_offset=case.offset,
    )


def _cache(subject: Subject, case: Case) -> None:
    """Each call's rows against the whole sequence so far; of a long first chunk the last rows alone."""
    pattern, attn = subject.pattern, subject.attn
    drawn, given = subject.inputs(case), subject.given(case)
    held = attn.new_cache(case.batch, case.keys, device=subject.device)
    for arena in (held.keys, held.values):
        arena.fill_(float("nan"))
    sink = None if subject.sink is None else subject.sink.detach()
    found: list[tuple[Tensor, Tensor]] = []
    wanted: list[Expected] = []
    length = 0
    with torch.no_grad():
        for count in case.chunks:
            now, length = slice(length, length + count), length + count
            q, k, v = (t[:, :, now] for t in (drawn.q, drawn.k, drawn.v))
            more: dict[str, object] = {}
            rows, last = min(count, max(1, PAIRS // (pattern.heads * case.batch * length))), None
            if given is not None:
                new = inputs_of_part(pattern, given, queries=(length - count, length), keys=(length - count, length))
                more["inputs"] = subject.moved(_for_cache(pattern, new))
                last = inputs_of_part(pattern, given, queries=(length - rows, length), keys=(0, length))
            out, lse = subject.call(q, k, v, cache=held, **more)
            found.append((out[:, :, -rows:], lse[:, :, -rows:]))
            visible, bias = mask(pattern, rows, length, inputs=last), key_bias_in(pattern, last)
            so_far = q[:, :, -rows:], drawn.k[:, :, :length], drawn.v[:, :, :length], visible
            wanted.append(expected_attention(*so_far, pattern.score, sink=sink, key_bias=bias, q_offset=length - rows))
    if held.length != length:
        raise AssertionError(f"the cache says that it holds {held.length} tokens of {length}")
    out, lse = (torch.cat(parts, dim=2) for parts in zip(*found, strict=True))
    assert_close(out, lse, _joined(wanted))


def _for_cache(pattern: ResolvedPattern, given: Mapping[str, InputTensors]) -> dict[str, InputTensors]:
    """The inputs with labels of int32, as a cache keeps them."""
    labels = [decl.name for decl in pattern.inputs if decl.kind is InputKind.LABELS]
    of_queries_and_keys = {name: given[name] for name in labels}
    narrow = {name: (pair[0].to(torch.int32), pair[1].to(torch.int32)) for name, pair in of_queries_and_keys.items()}
    return {**given, **narrow}


def _joined(parts: list[Expected]) -> Expected:
    names = ("exact", "exact_lse", "plain", "plain_lse")
    return Expected(*(torch.cat([getattr(part, name) for part in parts], dim=2) for name in names))


_RUN: dict[str, Callable[[Subject, Case], None]] = {
    "forward": _forward,
    "probes": _probes,
    "gradients": _gradients,
    "cache": _cache,
}
