"""Rows of keys and values on each rank -> those that its queries need, by one uneven all-to-all; gradients go back.

Invariant: sums of gradients are taken rank by rank, in order, in float32 at least: the same on every run.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from sparsec.diagnostics.model import SparsecError

if TYPE_CHECKING:
    from collections.abc import Iterator


PAGES = 1 << 16
"""Bytes from which zeros are mapped."""
KEYS, GRADIENTS = "keys and values", "gradients of keys and values"


class ExchangeError(SparsecError, RuntimeError):
    """A rank did not send or receive: it has died, or stalls. The message names the phase, and the ranks if it can."""


@dataclass(frozen=True, slots=True, eq=False)
class TravellingRows:
    """Rows of one token in one KV group; a rank's own are [groups, tokens], flat, and go with what comes into a buffer
    of `count` rows.

    sent: which of its own a rank sends, those to rank 0 first; received: where what comes goes, that of rank 0 first;
    held: where its own go. `sent_to[r]` and `received_of[r]`: how many they are. copies: the same on other devices.
    """

    sent: Tensor
    sent_to: tuple[int, ...]
    received: Tensor
    received_of: tuple[int, ...]
    held: Tensor
    count: int
    copies: dict[torch.device, TravellingRows] = field(default_factory=dict)

    def on(self, device: torch.device) -> TravellingRows:
        """The same with its tensors on a device, where they stay."""
        if device == self.held.device:
            return self
        if device not in self.copies:
            moved = {name: getattr(self, name).to(device) for name in ("sent", "received", "held")}
            self.copies[device] = replace(self, **moved, copies={})
        return self.copies[device]


@dataclass(slots=True, eq=False)
class OnTheWay:
    """What is to come of one exchange: `wait` puts it where it goes, and returns once it is there."""

    work: dist.Work
    came: tuple[Tensor, ...]
    where: Tensor
    buffers: tuple[Tensor, ...]
    group: ProcessGroup

    def wait(self) -> None:
        with exchange_of(KEYS, self.group):
            self.work.wait()
        for buffer, part in zip(self.buffers, self.came, strict=True):
            # what was computed of the buffer before has not read these rows, whatever autograd may think
            buffer.data.index_copy_(0, self.where, part)


def exchanged(
    k: Tensor, v: Tensor, rows: TravellingRows, group: ProcessGroup, later: list[OnTheWay] | None = None
) -> tuple[Tensor, Tensor]:
    """k [B, groups, tokens, D] and v [B, groups, tokens, DV] -> [rows.count, B * D] and [rows.count, B * DV], of which
    those are there that this rank holds or needs; the others are 0. Differentiable.

    later: then the rows of other ranks are there after the `wait` of what is put into it.
    """
    return _Exchange.apply(k, v, rows, group, later)  # type: ignore[no-any-return, no-untyped-call]  # torch leaves it untyped


def on_every_rank(x: Tensor, counts: Sequence[int], rank: int, group: ProcessGroup) -> Tensor:
    """The ranks' `x` [counts[rank], ...] one after another, on every rank. Differentiable."""
    return _Gather.apply(x, tuple(counts), rank, group)  # type: ignore[no-any-return, no-untyped-call]  # likewise


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, k: Tensor, v: Tensor, rows: TravellingRows, group: ProcessGroup, later: list[OnTheWay] | None
    ) -> tuple[Tensor, Tensor]:
        rows = rows.on(k.device)
        ctx.rows, ctx.group, ctx.shapes = rows, group, (k.shape, v.shape)
        work, came = sent_to_all([flat_rows(k), flat_rows(v)], rows.sent, rows.sent_to, rows.received_of, group, KEYS)
        buffers = list[Tensor]()
        for each, part in zip((k, v), came, strict=True):
            buffers.append(_zeros(rows.count, part))
            buffers[-1].index_copy_(0, rows.held, flat_rows(each))
        coming = OnTheWay(work, came, rows.received, tuple(buffers), group)
        if later is None:
            coming.wait()
        else:
            later.append(coming)
        return buffers[0], buffers[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        rows: TravellingRows = ctx.rows
        work, came = sent_to_all(gradients, rows.received, rows.received_of, rows.sent_to, ctx.group, GRADIENTS)
        with exchange_of(GRADIENTS, ctx.group):
            work.wait()
        to_each = torch.split(rows.sent, list(rows.sent_to))
        own = []
        for whole, part, (batch, groups, tokens, dim) in zip(gradients, came, ctx.shapes, strict=True):
            total = whole.index_select(0, rows.held)
            total = total if total.dtype == torch.float64 else total.float()
            for where, of_rank in zip(to_each, torch.split(part, list(rows.sent_to)), strict=True):  # no place twice
                total.index_copy_(0, where, total.index_select(0, where) + of_rank)
            own.append(unflat(total.to(whole.dtype), batch, groups, tokens, dim))
        return own[0], own[1], None, None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: tuple[int, ...], rank: int, group: ProcessGroup) -> Tensor:
        ctx.counts, ctx.rank, ctx.group = counts, rank, group
        found = x.new_zeros((len(counts), max(counts), *x.shape[1:]))
        padded = x.new_zeros((max(counts), *x.shape[1:]))
        padded[: len(x)] = x
        with exchange_of("what the ranks hold", group):
            dist.all_gather(list(found.unbind()), padded.contiguous(), group)
        return torch.cat([part[:count] for part, count in zip(found, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        total = gradients[0].contiguous().clone()
        with exchange_of("gradients of what the ranks hold", ctx.group):
            dist.all_reduce(total, group=ctx.group)
        return total.split(ctx.counts)[ctx.rank], None, None, None


def flat_rows(x: Tensor) -> Tensor:
    """[B, groups, tokens, dim] -> [groups * tokens, B * dim]."""
    batch, groups, tokens, dim = x.shape
    return x.permute(1, 2, 0, 3).reshape(groups * tokens, batch * dim)


def unflat(rows: Tensor, batch: int, groups: int, tokens: int, dim: int) -> Tensor:
    """The other way."""
    return rows.view(groups, tokens, batch, dim).permute(2, 0, 1, 3)


def _zeros(count: int, like: Tensor) -> Tensor:
    """Rows of zeros; on a CPU the system gives memory for the pages of those that are written alone."""
    wanted = count * like.shape[1] * like.element_size()
    if like.device.type != "cpu" or wanted < PAGES:
        return like.new_zeros((count, like.shape[1]))
    memory = mmap.mmap(-1, wanted)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)  # one of two megabytes would hold many rows that are not written
    return torch.frombuffer(memory, dtype=torch.uint8).view(like.dtype).view(count, like.shape[1])


def sent_to_all(
    flat: Sequence[Tensor],
    places: Tensor,
    to_each: Sequence[int],
    of_each: Sequence[int],
    group: ProcessGroup,
    what: str,
) -> tuple[dist.Work, tuple[Tensor, ...]]:
    """Sends the rows of both at `places`, to_each[r] of them to rank r, in one message. Returns what is to be waited
    for before those that come are there, of_each[r] of rank r, one rank after another; and these."""
    widths = [each.shape[1] for each in flat]
    sent = torch.cat([each.index_select(0, places) for each in flat], dim=1)
    came = sent.new_empty((sum(of_each), sum(widths)))
    with exchange_of(what, group):
        work = dist.all_to_all_single(came, sent, list(of_each), list(to_each), group, async_op=True)
    return work, torch.split(came, widths, dim=1)


@contextmanager
def exchange_of(what: str, group: ProcessGroup) -> Iterator[None]:
    """Makes a failed exchange of `what` an ExchangeError that names the ranks which do not answer."""
    try:
        yield
    except RuntimeError as error:
        from sparsec.distributed.faults import silent_ranks

        gone = silent_ranks(group)
        said = f"rank {', '.join(map(str, gone))} does not answer" if gone else "every rank still answers"
        where = f"rank {dist.get_rank(group)}: the exchange of {what} failed, and {said}"
        raise ExchangeError(f"{where} ({str(error).strip().splitlines()[0]:.200})") from error
