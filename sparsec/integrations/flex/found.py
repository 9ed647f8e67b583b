"""A callable mask of FlexAttention -> a pattern of terms that gives the same pairs, and how sure that is; or none.

Invariant: a pattern that is given was parsed from its text, and the reference meaning of it was compared with the
callable, pair by pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from sparsec.diagnostics.arguments import integer
from sparsec.diagnostics.model import CallError, SparsecError, in_one_line
from sparsec.integrations.flex.evidence import Bools
from sparsec.integrations.flex.masks import MaskMod
from sparsec.integrations.flex.matching import Looked, Match, matches, why_not
from sparsec.program import Pattern, parse
from sparsec.reference import mask

LONGEST = 4096
"""Positions at most of which every pair is looked at."""
ROWS, RUNS = 4, 12
"""Rows in one run, and runs of them, that are compared beyond these positions."""


@dataclass(frozen=True)
class FoundPattern:
    """What was found. `bool()` of it says whether anything was; `str()` is the text with what is known of it.

    pattern, text: None and "" if nothing. cu_seqlens: where the documents start, and n last; None without documents.
    inputs: lengths, int [batch], for a pattern that declares one. pairs: how many were compared, all of them the same.
    farthest: the greatest position of these. why: in one sentence, how sure it is; or why nothing was found.
    """

    pattern: Pattern | None
    text: str
    why: str
    pairs: int = 0
    farthest: int = 0
    cu_seqlens: tuple[int, ...] | None = None
    inputs: Mapping[str, Tensor] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.pattern is not None

    def __str__(self) -> str:
        return f"# {self.why}\n{self.text}"


def from_mask_mod(
    f: MaskMod,
    n: int,
    *,
    heads: int = 1,
    kv_heads: int | None = None,
    batch: int = 1,
    farthest: int | None = None,
    device: torch.device | str = "cpu",
    name: str = "found",
) -> FoundPattern:
    """Looks for a pattern of terms that sees the same pairs as `f`, a mask_mod of FlexAttention.

    Every pair of n positions, 16 to 4,096, is compared, for each of `heads` query heads and `batch` sequences; whatever
    `f` does to be shown has to happen there: two chunks, three periods of a stride, the end of each window. Then come
    rows between n and `farthest` (4 n, if left out, on a CPU), where f can be asked there: one that reads tensors of n
    entries cannot. Found are unions of windows, sinks, ranges of columns and rows, strides, dilations, chunks and
    global tokens, in tokens or blocks, within others of them or without them; by heads, with numbers that follow `h`
    or the KV group `g`; in documents, packed one behind the other; and prefixes or windows whose length differs
    between sequences, as an input. device: where f's tensors are. name: of the pattern in the text.

    Returns what was found, or why nothing was. Raises CallError for arguments, and for an `f` that raises or gives no
    booleans.
    """
    n, heads, batch = integer("n", n, 16, LONGEST), integer("heads", heads, 1), integer("batch", batch, 1)
    groups = None if kv_heads is None else integer("kv_heads", kv_heads, 1)
    if groups is not None and heads % groups:
        raise CallError(f"expected kv_heads to divide heads={heads}, got kv_heads={groups}")
    if not _is_name(name):
        raise CallError(f"expected a name for the pattern that the language takes, got {name!r:.80}")
    end = (
        integer("farthest", farthest, n) if farthest is not None else 4 * n if torch.device(device).type == "cpu" else n
    )
    asked = _Asked(f, torch.device(device), heads, batch)
    looked = asked.every_pair(n)
    tried = set()
    differs: FoundPattern | None = None
    for match in matches(looked, name, groups):
        if match.text in tried:
            continue
        tried.add(match.text)
        found = _confirmed(asked, looked, match, end)
        if found:
            return found
        differs = differs or found
    return differs if differs is not None else FoundPattern(None, "", why_not(looked))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a mask_mod says of pairs, called as FlexAttention does: with scalars, under vmap."""

    f: MaskMod
    device: torch.device
    heads: int
    batch: int

    def pairs(self, b: int, h: int, queries: range, keys: range) -> Bools:
        """bool [queries, keys]. Raises CallError."""
        b_, h_ = (torch.tensor(each, device=self.device) for each in (b, h))
        i, j = (torch.arange(each.start, each.stop, device=self.device) for each in (queries, keys))
        of_row = torch.vmap(self.f, (None, None, None, 0))
        try:
            seen: object = torch.vmap(of_row, (None, None, 0, None))(b_, h_, i, j)
        except Exception as error:  # whatever a user's function raises
            raise CallError(
                f"expected a mask_mod (b, h, q_idx, kv_idx) as FlexAttention takes it, got {in_one_line(error)}"
            ) from error
        if not isinstance(seen, Tensor) or seen.dtype != torch.bool or seen.shape != (len(queries), len(keys)):
            given = f"{seen.dtype} {list(seen.shape)}" if isinstance(seen, Tensor) else type(seen).__name__
            raise CallError(f"expected a mask_mod that gives one boolean for a pair, got {given} of all")
        return np.asarray(seen.cpu().numpy())

    def every_pair(self, n: int) -> Looked:
        """Of n positions; equal squares are held once."""
        known: dict[bytes, int] = {}
        masks: list[Bools] = []
        of = np.zeros((self.batch, self.heads), np.int64)
        for b in range(self.batch):
            for h in range(self.heads):
                seen = self.pairs(b, h, range(n), range(n))
                digest = sha256(np.packbits(seen).tobytes()).digest()
                if digest not in known:
                    known[digest] = len(masks)
                    masks.append(seen)
                of[b, h] = known[digest]
        return Looked(tuple(masks), of)


def _confirmed(asked: _Asked, looked: Looked, match: Match, end: int) -> FoundPattern:
    """The pattern of a text, compared with what was asked; without it where a pair differs."""
    try:
        pattern = parse(match.text, filename="<found>").pattern()
        resolved = pattern.resolve(asked.heads if pattern.heads is None else None)
    except SparsecError as error:
        return FoundPattern(None, "", f"no pattern: what explains the pairs is no program: {in_one_line(error)}")
    n = looked.size
    bounds, given = match.cu_seqlens, dict(match.inputs)
    meant = mask(resolved, n, n, cu_seqlens=bounds, inputs=given or None).numpy()
    for b in range(asked.batch):
        for h in range(asked.heads):
            own = meant[h] if meant.ndim == 3 else meant[b if len(meant) > 1 else 0, h]
            if not np.array_equal(own, looked.masks[looked.of[b, h]]):
                what = (
                    "what is seen differs between sequences, and not in one length alone"
                    if given
                    else (f"head {h} differs from the terms that seemed to explain it")
                )
                return FoundPattern(None, "", f"no pattern: {what}")
    pairs = asked.batch * asked.heads * n * n
    heads = f"{asked.heads} heads" if asked.heads > 1 else "one head"
    every = f"equal on all {pairs:,} pairs of {n:,} positions, of {heads}"
    if asked.batch > 1:
        every += f" in {asked.batch} sequences"
    here = FoundPattern(pattern, match.text, f"{every}; nothing beyond them was compared", pairs, n - 1, bounds, given)
    if bounds is not None or end <= n:
        return here
    beyond = _rows_beyond(n, end)
    for rows in beyond:
        meant = mask(resolved, len(rows), end, q_offset=rows.start, inputs=given or None).numpy()
        for b in range(asked.batch):
            for h in range(asked.heads):
                try:
                    seen = asked.pairs(b, h, rows, range(end))
                except CallError:
                    return replace(here, why=f"{every}; beyond them the function raises, so nothing was compared there")
                own = meant[h] if meant.ndim == 3 else meant[b if len(meant) > 1 else 0, h]
                if not np.array_equal(own, seen):
                    i, j = (int(each[0]) for each in (own != seen).nonzero())
                    return FoundPattern(
                        None,
                        "",
                        f"no pattern: `{_attends(match.text)}` is {every}, but not at query {rows.start + i}, key {j} "
                        f"of head {h}: give a larger n",
                    )
                pairs += own.size
    count = sum(map(len, beyond))
    why = f"{every}, and in {count} row{'s' * (count > 1)} beyond, up to {end:,}"
    return replace(here, why=why, pairs=pairs, farthest=end - 1)


def _rows_beyond(n: int, end: int) -> list[range]:
    """RUNS ascending runs of ROWS rows of n <= i < end, from the first to the last, no row twice; all, if these are no
    more."""
    if end - n <= RUNS * ROWS:
        return [range(start, min(start + ROWS, end)) for start in range(n, end, ROWS)]
    starts = (n + run * (end - n - ROWS) // (RUNS - 1) for run in range(RUNS))
    return [range(start, start + ROWS) for start in starts]


def _is_name(name: object) -> bool:
    """Whether it is one word, with which a pattern may be declared."""
    if not isinstance(name, str) or not name.isidentifier():
        return False
    try:
        return list(parse(f"pattern {name} {{ attend full }}").patterns) == [name]
    except SparsecError:
        return False


def _attends(text: str) -> str:
    """The statements of a pattern's text in one line."""
    return " ".join(text.split("{", 1)[1].rsplit("}", 1)[0].split())
