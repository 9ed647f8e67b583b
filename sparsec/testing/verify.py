"""A compiled pattern -> whether its properties hold over drawn cases, and of each that does not the smallest case.

Properties: output and LSE, the exact probes, the gradients, and a walk through the KV cache. Invariant: what is right
comes from the reference alone; a failure names a case that fails again when it is run by itself.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Flaky
from torch import Tensor
from torch.func import functional_call

from sparsec.diagnostics.model import CallError, DiagnosticError
from sparsec.reference.mask import mask
from sparsec.runtime.module import SparseAttention
from sparsec.sema.model import Heads
from sparsec.testing.cases import CHECKS, PAIRS, Case, cases
from sparsec.testing.gradients import check_gradients
from sparsec.testing.probes import Attend, check_forward
from sparsec.testing.tolerance import Expected, assert_close, expected_attention

SHRINKING_SECONDS = 20.0
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is tested: `attn` against the meaning of `pattern`, which it was compiled from."""

    pattern: Heads
    attn: SparseAttention
    device: torch.device
    sink: Tensor | None = None
    """The learned sink that every call has, on the CPU; None if the pattern has none."""

    @classmethod
    def of(cls, pattern: Heads, attn: SparseAttention, device: torch.device) -> Subject:
        """With a learned sink, if there is one, that differs from head to head."""
        sink = torch.linspace(-1.0, 1.5, pattern.heads).requires_grad_() if pattern.score.learned_sink else None
        return cls(pattern, attn, device, sink)

    def visible(self, case: Case) -> Tensor:
        """The reference's mask, bool [heads, queries, keys]."""
        return mask(self.pattern, case.queries, case.keys, case.offset, cu_seqlens=case.cu_seqlens)

    def attend(self, case: Case) -> Attend:
        """A call of the module as a function of tensors on the CPU, differentiable."""
        offset, more = (None if case.bounds else case.offset), {}
        if case.bounds:
            more["cu_seqlens"] = torch.tensor(case.bounds, dtype=torch.int32, device=self.device)

        def call(*qkv: Tensor) -> tuple[Tensor, Tensor]:
            out, lse = self.call(*qkv, q_offset=offset, **more)
            return out, lse

        return call

    def call(self, *qkv: Tensor, **more: object) -> tuple[Tensor, Tensor]:
        parameters = {} if self.sink is None else {"sink": self.sink.to(self.device)}
        moved = tuple(t.to(self.device) for t in qkv)
        out, lse = functional_call(self.attn, parameters, moved, {"return_lse": True, **more})
        return out.cpu(), lse.cpu()


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
    started = time.perf_counter()
    search = _Search(subject, lambda text: report(f"{check}, {text} of {examples}"))

    @seeded(seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(cases(check, subject.pattern))
    def run(case: Case) -> None:
        search.run(case)

    try:
        run()
    except Flaky:
        assert search.failure is not None, "only a failure can be flaky"
        search.failure = Failure(search.failure.case, f"{search.failure.message}\nanother run of it did not fail")
    except AssertionError:
        assert search.failure is not None, "the run noted its failure"
    seconds = time.perf_counter() - started
    return Result(check, search.examples, search.keys, seconds, search.failure, partial=search.partial)


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
    message = _failing(subject, case)
    failure = None if message is None else Failure(case, message)
    return Result(case.check, 1, case.keys, time.perf_counter() - started, failure, partial=True)


@dataclass(slots=True)
class _Search:
    """What running one case after another has found."""

    subject: Subject
    report: Callable[[str], None]
    examples: int = 0
    keys: int = 0
    partial: bool = False
    failure: Failure | None = None
    failed: set[Case] = field(default_factory=set)
    deadline: float = 0.0

    def run(self, case: Case) -> None:
        """Raises AssertionError if the case fails; once shrinking has had its time, only cases that failed before do.

        The last case to fail is the smallest: hypothesis runs it again at the end.
        """
        if not self.failed:
            self.examples += 1
            self.keys = max(self.keys, case.keys)
            self.report(f"example {self.examples}")
            self.partial = self.partial or _sees_a_part(self.subject, case)
        elif case not in self.failed and time.perf_counter() > self.deadline:
            return
        else:
            self.report(f"shrinking, {case.keys} keys")
        message = _failing(self.subject, case)
        if message is not None:
            if not self.failed:
                self.deadline = time.perf_counter() + SHRINKING_SECONDS
            self.failed.add(case)
            self.failure = Failure(case, message)
            raise AssertionError(message)


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
    visible = mask(subject.pattern, case.chunks[-1], case.keys) if case.chunks else subject.visible(case)
    seen = visible.sum(dim=-1)
    return bool(((seen > 0) & (seen < case.keys)).any())


def _failing(subject: Subject, case: Case) -> str | None:
    """What differs; None if the case passes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a cache grows, or that an operator of torch is not deterministic
            _RUN[case.check](subject, case)
    except AssertionError as error:
        return str(error)
    except Exception as error:  # whatever a valid call raises is a failure of the property
        return f"{type(error).__name__}: {error}"
    return None


def _forward(subject: Subject, case: Case) -> None:
    drawn = case.inputs(subject.pattern, subject.attn.head_dim, subject.attn.dtype)
    qkv, visible = (drawn.q, drawn.k, drawn.v), subject.visible(case)
    with torch.no_grad():
        out, lse = subject.attend(case)(*qkv)
        sink = None if subject.sink is None else subject.sink.detach()
        want = expected_attention(*qkv, visible, subject.pattern.score, sink=sink, q_offset=case.offset)
    _assert_close(out, lse, want, visible)


def _probes(subject: Subject, case: Case) -> None:
    drawn = case.inputs(subject.pattern, subject.attn.head_dim, subject.attn.dtype)
    check_forward(
        subject.attend(case),
        *(drawn.q, drawn.k, drawn.v, subject.visible(case), subject.pattern.score),
        sink=subject.sink,
        q_offset=case.offset,
        packed=bool(case.bounds),
        within_tolerance=False,
    )


def _gradients(subject: Subject, case: Case) -> None:
    drawn = case.inputs(subject.pattern, subject.attn.head_dim, subject.attn.dtype)
    check_gradients(
        subject.attend(case),
        *(drawn.q, drawn.k, drawn.v, subject.visible(case), subject.pattern.score),
        sink=subject.sink,
        q_offset=case.offset,
    )


def _cache(subject: Subject, case: Case) -> None:
    """Each call's rows against the whole sequence so far; of a long first chunk the last rows alone."""
    pattern, attn = subject.pattern, subject.attn
    drawn = case.inputs(pattern, attn.head_dim, attn.dtype)
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
            out, lse = subject.call(q, k, v, cache=held)
            rows = min(count, max(1, PAIRS // (pattern.heads * case.batch * length)))
            found.append((out[:, :, -rows:], lse[:, :, -rows:]))
            so_far = q[:, :, -rows:], drawn.k[:, :, :length], drawn.v[:, :, :length], mask(pattern, rows, length)
            wanted.append(expected_attention(*so_far, pattern.score, sink=sink, q_offset=length - rows))
    if held.length != length:
        raise AssertionError(f"the cache says that it holds {held.length} tokens of {length}")
    out, lse = (torch.cat(parts, dim=2) for parts in zip(*found, strict=True))
    assert_close(out, lse, _joined(wanted))


def _joined(parts: list[Expected]) -> Expected:
    names = ("exact", "exact_lse", "plain", "plain_lse")
    return Expected(*(torch.cat([getattr(part, name) for part in parts], dim=2) for name in names))


def _assert_close(out: Tensor, lse: Tensor, want: Expected, visible: Tensor) -> None:
    try:
        assert_close(out, lse, want)
    except AssertionError as error:
        off = (out.double() - want.exact).abs().nan_to_num(torch.inf).amax(dim=-1)
        batch, head, row = (int(n) for n in torch.unravel_index(off.argmax(), off.shape))
        raise AssertionError(
            f"{error}\nfarthest off, by {float(off[batch, head, row]):.3g}: sequence {batch}, head {head}, "
            f"query {row}, which sees {_ranges(visible[head, row])}"
        ) from error


def _ranges(row: Tensor, most: int = 8) -> str:
    """The keys of a row of a mask, in half-open ranges."""
    keys = row.nonzero().flatten()
    if not len(keys):
        return "no key"
    breaks = (keys[1:] != keys[:-1] + 1).nonzero().flatten() + 1
    runs = [f"{int(run[0])}..{int(run[-1]) + 1}" for run in torch.tensor_split(keys, breaks)]
    return "keys " + ", ".join(runs[:most]) + (f" and {len(runs) - most} more runs" if len(runs) > most else "")


_RUN: dict[str, Callable[[Subject, Case], None]] = {
    "forward": _forward,
    "probes": _probes,
    "gradients": _gradients,
    "cache": _cache,
}
