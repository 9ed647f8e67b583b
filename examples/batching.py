"""Continuous batching by hand: requests that come at any time -> greedy tokens, of many sequences in one batch.

A thread of its own has the model. In each round it reads a chunk of one waiting prompt, in caches of one sequence, and
takes a step with all sequences that are being answered, each in a row of the caches for all. A prompt that has been
read is admitted to a row; a sequence that ends, or whose client is gone, gives its row back.

Invariant: the memory for keys is that of the start: rows, prompts and the queue have limits, and what is beyond them is
refused.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from lm import Decoder, attentions
from torch import Tensor

from sparsec.runtime.kv.cache import KVCache


class Refused(Exception):
    """A request that can never be answered."""


class Busy(Exception):
    """More requests than may wait."""


@dataclass(frozen=True, slots=True)
class Limits:
    """rows: sequences that are answered at one time. max_len: tokens of a prompt and its answer. waiting: requests that
    wait for a row. chunk: tokens of a prompt that are read in a round."""

    rows: int = 16
    max_len: int = 4096
    waiting: int = 64
    chunk: int = 256


@dataclass(slots=True, eq=False)
class Request:
    """`tell` gets each token, then None, or what went wrong; the engine's thread calls it."""

    prompt: list[int]
    new: int
    tell: Callable[[int | str | None], None]
    cancelled: bool = False
    read: int = 0
    last: int = -1
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.new


class Engine:
    """Answers requests with a model. `submit` and `cancel` may be called from any thread."""

    def __init__(self, model: Decoder, vocabulary: int, limits: Limits) -> None:
        self.model, self.vocabulary, self.limits = model.eval(), vocabulary, limits
        self.caches = [each.new_cache(limits.rows, limits.max_len) for each in attentions(model)]
        self.prompts = [each.new_cache(1, limits.max_len) for each in attentions(model)]
        self.rows: dict[int, Request] = {}
        self.reading: Request | None = None
        self.waiting: deque[Request] = deque()
        self.finished = self.dropped = 0
        self._changed, self._stopping = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._empty()

    @property
    def nbytes(self) -> int:
        """Of all keys and values that there is room for."""
        return sum(cache.nbytes for cache in (*self.caches, *self.prompts))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def submit(self, request: Request) -> None:
        """Raises ValueError for what is no request, Refused for one beyond the limits, Busy where too many wait."""
        prompt, limits = request.prompt, self.limits
        if not prompt or request.new < 1:
            raise ValueError(f"expected a prompt and at least 1 new token, got {len(prompt)} tokens and {request.new}")
        if min(prompt) < 0 or max(prompt) >= self.vocabulary:
            raise ValueError(f"expected tokens from 0 to {self.vocabulary - 1}, got {min(prompt)} to {max(prompt)}")
        if len(prompt) + request.new > limits.max_len:
            raise Refused(
                f"expected at most {limits.max_len} tokens of prompt and answer, got {len(prompt)} + {request.new}"
            )
        with self._changed:
            if self._stopping:
                raise Busy("the server is stopping")
            if len(self.waiting) >= limits.waiting:
                raise Busy(f"{limits.waiting} requests are waiting already")
            self.waiting.append(request)
            self._changed.notify()

    def cancel(self, request: Request) -> None:
        """Nobody waits for the request's tokens any more; its row is free after the round at hand."""
        with self._changed:
            request.cancelled = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._drop_cancelled()
                while not (self._stopping or self.rows or self.reading or self.waiting):
                    self._changed.wait()
                    self._drop_cancelled()
                if self._stopping:
                    break
                if self.reading is None and self.waiting and len(self.rows) < self.limits.rows:
                    self.reading = self.waiting.popleft()
            try:
                with torch.inference_mode():
                    self._read()
                    self._step()
            except Exception as error:  # the requests at hand fail, those to come need not
                traceback.print_exc()
                self._fail(f"{type(error).__name__} in the model")
        self._fail("the server has stopped")

    def _drop_cancelled(self) -> None:
        gone = [row for row, request in self.rows.items() if request.cancelled]
        for row in gone:
            self._release(row)
        kept = [request for request in self.waiting if not request.cancelled]
        self.dropped += len(gone) + len(self.waiting) - len(kept)
        self.waiting = deque(kept)
        if self.reading is not None and self.reading.cancelled:
            self.dropped += 1
            self._forget_prompt()

    def _read(self) -> None:
        """Reads a chunk of the prompt at hand; once it has ended, its sequence gets a row."""
        request = self.reading
        if request is None:
            return
        part = request.prompt[request.read : request.read + self.limits.chunk]
        logits = self.model(torch.tensor([part]), self.prompts)
        request.read += len(part)
        if request.read < len(request.prompt):
            return
        if self._say(request, logits[0, -1]):
            row = next(row for row in range(self.limits.rows) if row not in self.rows)
            for cache, prompt in zip(self.caches, self.prompts, strict=True):
                cache.admit(row, prompt)
            self.rows[row] = request
        self._forget_prompt()

    def _step(self) -> None:
        """One more token of each sequence that has a row."""
        if not self.rows:
            return
        symbols = torch.zeros((self.limits.rows, 1), dtype=torch.int64)
        for row, request in self.rows.items():
            symbols[row] = request.last
        logits = self.model(symbols, self.caches)[:, -1]
        ended = [row for row, request in self.rows.items() if not self._say(request, logits[row])]
        for row in ended:
            self._release(row)

    def _say(self, request: Request, logits: Tensor) -> bool:
        """Tells the likeliest token; whether there are more to come."""
        request.last = int(logits.argmax())
        request.left -= 1
        request.tell(request.last)
        if request.left == 0:
            self.finished += 1
            request.tell(None)
        return request.left > 0

    def _release(self, row: int) -> None:
        del self.rows[row]
        for cache in self.caches:
            cache.release(row)

    def _forget_prompt(self) -> None:
        self.reading = None
        for cache in self.prompts:
            cache.reset()

    def _fail(self, reason: str) -> None:
        with self._changed:
            waiting = [*self.rows.values(), *([] if self.reading is None else [self.reading])]
            if self._stopping:
                waiting += self.waiting
                self.waiting.clear()
            self._empty()
        for request in waiting:
            request.tell(reason)

    def _empty(self) -> None:
        self.rows.clear()
        self._forget_prompt()
        for cache in self.caches:
            cache.reset()
            cache.release(range(self.limits.rows))


def rows_for(model: Decoder, max_len: int, nbytes: int) -> int:
    """How many sequences of `max_len` tokens have room in so many bytes, beside the prompt that is being read."""
    of_one = sum(each.new_cache(1, max_len).nbytes for each in attentions(model))
    rows = nbytes // of_one - 1
    if rows < 1:
        raise SystemExit(f"expected memory for two sequences, {2 * of_one:,} bytes at {max_len} tokens, got {nbytes:,}")
    return rows


def greedy(model: Decoder, prompt: list[int], new: int) -> tuple[list[int], float]:
    """The tokens of a request that is alone, and by how much the likeliest was ahead of the second one, at least."""
    caches: list[KVCache] = [each.new_cache(1) for each in attentions(model)]
    tokens, ahead = [], float("inf")
    with torch.inference_mode():
        part = prompt
        while len(tokens) < new:
            logits = model(torch.tensor([part]), caches)[0, -1]
            first, second = logits.topk(2).values.tolist()
            ahead = min(ahead, first - second)
            tokens.append(int(logits.argmax()))
            part = tokens[-1:]
    return tokens, ahead
