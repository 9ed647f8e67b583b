"""A step over a cache that has dropped keys (`KVCache.keep`), timed beside the same cache with all its keys, SDPA over
every key, and a window of as many keys -> figures and their table.

Invariant: as of `measure_cached`; which keys are kept is drawn, always the same, and new tokens are none of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsec.bench.cached import windowed
from sparsec.bench.forward import launched_lines
from sparsec.diagnostics.tables import table

if TYPE_CHECKING:
    from sparsec.bench.baselines import BenchCase
    from sparsec.runtime.kv.cache import KVCache
    from sparsec.runtime.module import SparseAttention

ROWS = {
    "dense": "every key, SDPA",
    "masked": "every key, masked",
    "kept": "`keep`",
    "window": "a window of as many keys",
}


@dataclass(frozen=True, slots=True)
class KeptFigures:
    """Seconds of one token at `length` and bytes of the keys and values, by the names of `ROWS`.

    share: of the keys that are marked. kept_bytes: of these keys alone. launched: as of Measurement.
    """

    length: int
    share: float
    seconds: dict[str, float]
    nbytes: dict[str, int]
    kept_bytes: int
    launched: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "seq_len": self.length,
            "keep": self.share,
            "ms": {name: seconds * 1e3 for name, seconds in self.seconds.items()},
            "bytes": self.nbytes,
            "kept_keys_bytes": self.kept_bytes,
            "host_time_in": self.launched,
        }


def measure_kept(
    attn: SparseAttention, case: BenchCase, share: float, *, repeats: int, report: Callable[[str], None]
) -> KeptFigures:
    """Times steps at about `case.length` tokens, `share` of which are marked. The pattern's inputs are of kind tokens.
    Raises as `KVCache.keep` does."""
    import torch

    from sparsec.bench.baselines import over_dense_cache
    from sparsec.bench.clock import CALLS_BESIDE_ROUNDS, median_seconds
    from sparsec.runtime.inputs.remembered import count_marks

    pattern, device = case.pattern, case.device
    report("filling the caches")
    q, k, v = case.inputs()
    q, new_k, new_v = (each[:, :, -1:].contiguous() for each in (q, k, v))
    room = repeats + CALLS_BESIDE_ROUNDS
    drawn = torch.rand((case.batch, pattern.kv_heads, case.length), generator=torch.Generator().manual_seed(0))
    marks = (drawn < share).to(device)
    names = [each.name for each in pattern.inputs]
    unmarked = {name: marks.new_zeros((1, pattern.kv_heads, 1)) for name in names}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the cache keeps every key")
        every = _filled(attn, case, room)
    for counts in every.marks:
        count_marks(counts, marks.repeat_interleave(pattern.heads // pattern.kv_heads, 1))
    kept = every.fork()
    for name in names:
        kept.keep(name, marks, room=room)
    seen = _keys_of(kept) // (case.batch * pattern.kv_heads)
    window = windowed(attn, case, seen)
    near = _filled(window, case, room)
    steps: dict[str, Callable[[], object]] = {
        "dense": over_dense_cache(q, k, v, scale=None),
        "masked": lambda: attn(q, new_k, new_v, cache=every, inputs=unmarked),
        "kept": lambda: attn(q, new_k, new_v, cache=kept, inputs=unmarked),
        "window": lambda: window(q, new_k, new_v, cache=near),
    }
    report(f"timing {', '.join(steps)} at {case.length} tokens, {repeats} rounds")
    times = median_seconds(steps, repeats=repeats, device=device)
    key_bytes = 2 * case.head_dim * k.element_size()
    return KeptFigures(
        length=case.length,
        share=share,
        seconds={name: times[name].seconds for name in ROWS},
        nbytes={
            "dense": k.nbytes + v.nbytes,
            "masked": every.nbytes,
            "kept": kept.nbytes,
            "window": near.nbytes,
        },
        kept_bytes=int(marks.sum()) * key_bytes,
        launched=tuple(name for name, taken in times.items() if taken.host),
    )


def _keys_of(cache: KVCache) -> int:
    """The keys that a cache of kept keys holds, of all sequences and KV groups."""
    from sparsec.runtime.kv.lists import COUNT

    assert cache.kept is not None
    beside = cache.layout.slots(cache.max_len) * cache.batch_size
    return beside + int(cache.kept.lists[..., COUNT].sum())


def _filled(attn: SparseAttention, case: BenchCase, room: int) -> KVCache:
    """A cache of normal numbers, with room for so many tokens more."""
    from sparsec.bench.filled import fill_cache

    cache = attn.new_cache(case.batch, case.length + room, device=case.device)
    fill_cache(cache, case.length)
    return cache


def kept_table(measured: list[KeptFigures]) -> str:
    head = ("tokens", "kept", "", "cache MB", "ms a token", "of `keep`")
    rows = [
        (
            str(each.length),
            f"{each.share:.0%}",
            said,
            f"{each.nbytes[name] / 1e6:.1f}",
            f"{each.seconds[name] * 1e3:.3g}",
            f"{each.seconds[name] / each.seconds['kept']:.2f}x",
        )
        for each in measured
        for name, said in ROWS.items()
    ]
    lines = [table(head, rows), ""]
    for each in measured:
        over = each.nbytes["kept"] / max(each.kept_bytes, 1)
        lines.append(f"at {each.length} tokens `keep` holds {over:.2f} times the bytes of the kept keys alone")
    return "\n".join([*lines, *launched_lines(measured)])
