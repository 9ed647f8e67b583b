"""A compiled pattern over its KV cache, timed beside baselines over a dense cache -> figures of decode or of one chunk.

Invariant: as of `measure`. Each timed call attends and stores its tokens; so does `window`, and the other baselines
attend alone. A cache is filled with normal numbers before, so that no prefill of its length is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparsec.bench.baseline_names import baseline_label
from sparsec.bench.forward import launched_lines
from sparsec.diagnostics.tables import table

if TYPE_CHECKING:
    from torch import Tensor

    from sparsec.bench.baselines import BenchCase
    from sparsec.reference.parts import InputTensors
    from sparsec.runtime.module import SparseAttention


@dataclass(frozen=True, slots=True)
class CachedFigures:
    """Seconds of one call of `new` tokens, the last of `length`, by sparsec and by each baseline that ran.

    `launched`: as of Measurement. `live_keys`: those that the last query attends to, over the KV heads, a key that
    several heads of one share counted once; `dense_keys`: all of them; `window`: those of the window. Bytes are of keys
    and values: `live_bytes` those of the live keys of a batch, `cache_bytes` and `dense_bytes` what the caches hold;
    `copy_bytes_per_second` is what `torch.Tensor.copy_` reads.
    """

    length: int
    new: int
    seconds: dict[str, float]
    absent: dict[str, str]
    launched: tuple[str, ...]
    live_keys: int
    dense_keys: int
    window: int
    live_bytes: int
    cache_bytes: int
    dense_bytes: int
    copy_bytes_per_second: float

    @property
    def calls(self) -> dict[str, dict[str, float]]:
        """As of `bench.sums.TimedCalls`."""
        return {f"{self.new} new": self.seconds}

    @property
    def ideal(self) -> float:
        """The speed-up over a dense cache if time followed the keys read."""
        return self.dense_keys / max(self.live_keys, 1)

    @property
    def share_of_copy(self) -> float:
        """Live bytes a second as a share of the copy's."""
        return self.live_bytes / self.seconds["sparsec"] / self.copy_bytes_per_second

    def as_dict(self) -> dict[str, object]:
        """For JSON: milliseconds, ratios and bytes."""
        return {
            "seq_len": self.length,
            "new_tokens": self.new,
            "ms": {name: seconds * 1e3 for name, seconds in self.seconds.items()},
            "speed_up": {name: seconds / self.seconds["sparsec"] for name, seconds in self.seconds.items()},
            "absent": self.absent,
            "host_time_in": self.launched,
            "ideal_speed_up": self.ideal,
            "window": self.window,
            "cache_bytes": self.cache_bytes,
            "dense_cache_bytes": self.dense_bytes,
            "live_bytes": self.live_bytes,
            "share_of_copy_bandwidth": self.share_of_copy,
        }


def measure_cached(
    attn: SparseAttention,
    case: BenchCase,
    new: int,
    against: Collection[str],
    *,
    repeats: int,
    report: Callable[[str], None],
) -> CachedFigures:
    """Times calls of `new` tokens that end at about `case.length` tokens. Raises as `SparseAttention.new_cache`."""
    from sparsec.bench.baseline_calls import Passes, baseline_calls
    from sparsec.bench.baselines import copying
    from sparsec.bench.clock import CALLS_BESIDE_ROUNDS, median_seconds
    from sparsec.pictures.given import live_mask
    from sparsec.runtime.kv.stored import kv_dtype_of, width_of

    pattern, length = case.pattern, case.length
    report("filling the cache")
    q, k, v = case.inputs()
    few = tuple(t[:, :, length - new :].contiguous() for t in (q, k, v))
    stored = length - new, new * (repeats + CALLS_BESIDE_ROUNDS)
    calls: dict[str, Callable[[], object]] = {"sparsec": _step(attn, case, few, stored, case.given)}
    per_group = pattern.heads // pattern.kv_heads
    last = live_mask(pattern, case.given, new, length, length - new)[0, :, -1]
    seen = (
        last.repeat_interleave(pattern.heads // len(last), dim=0).view(pattern.kv_heads, per_group, length).any(dim=1)
    )
    live, dense_keys = case.batch * int(seen.sum()), case.batch * pattern.kv_heads * length
    window = max(round(int(seen.sum()) / pattern.kv_heads), 1)
    if "window" in against:
        report(f"compiling a window of {window} keys")
        calls["window"] = _step(windowed(attn, case, window), case, few, stored)
    others = [name for name in against if name != "window"]
    found = baseline_calls(
        pattern, (few[0], k, v), others, passes=Passes.CACHED, causal=True, report=report, given=case.given
    )
    calls |= found.calls
    calls["copy"] = copying(k)
    report(f"timing {', '.join(calls)} at {length} tokens, {repeats} rounds")
    times = median_seconds(calls, repeats=repeats, device=case.device)
    held = kv_dtype_of(case.kv_dtype, case.dtype)
    key_bytes = 2 * width_of(case.head_dim, held) * held.itemsize
    return CachedFigures(
        length=length,
        new=new,
        seconds={name: taken.seconds for name, taken in times.items() if name != "copy"},
        absent=found.absent,
        launched=tuple(name for name, taken in times.items() if taken.host),
        live_keys=live,
        dense_keys=dense_keys,
        window=window,
        live_bytes=live * key_bytes,
        cache_bytes=case.batch * attn.layout.slots(length) * key_bytes,
        dense_bytes=dense_keys * 2 * case.head_dim * k.element_size(),
        copy_bytes_per_second=2 * k.nbytes / times["copy"].seconds,
    )


def _step(
    attn: SparseAttention,
    case: BenchCase,
    few: tuple[Tensor, ...],
    stored: tuple[int, int],
    given: Mapping[str, InputTensors] | None = None,
) -> Callable[[], object]:
    """A call of `few` over a cache that holds stored[0] tokens, and has room for stored[1] more than one call's."""
    from sparsec.bench.filled import fill_cache

    room = sum(stored) + few[0].shape[2]
    cache = attn.new_cache(case.batch, room, device=case.device, kv_dtype=case.kv_dtype)
    fill_cache(cache, stored[0])
    more: dict[str, Any] = {"inputs": given} if given else {}
    return lambda: attn(*few, cache=cache, **more)


def windowed(attn: SparseAttention, case: BenchCase, keys: int) -> SparseAttention:
    """The target's kernels of a window of so many keys, one at least."""
    return case.compiled(f"pattern latest {{ causal attend window({max(keys, 1)}) }}", attn.target)


def cached_table(measured: list[CachedFigures], baselines: tuple[str, ...]) -> str:
    columns = [column for name in baselines for column in (f"{name} ms", f"vs {name}")]
    head = ("tokens", "new", "ms", *columns, "ideal", "cache MB", "dense MB", "live GB/s", "of copy")
    rows = []
    for each in measured:
        ours, against = each.seconds["sparsec"], []
        for name in baselines:
            seconds = each.seconds.get(name)
            against += ["-", "-"] if seconds is None else [f"{seconds * 1e3:.3g}", f"{seconds / ours:.2f}x"]
        rows.append(
            (
                str(each.length),
                str(each.new),
                f"{ours * 1e3:.3g}",
                *against,
                f"{each.ideal:.2f}x",
                f"{each.cache_bytes / 1e6:.1f}",
                f"{each.dense_bytes / 1e6:.1f}",
                f"{each.live_bytes / ours / 1e9:.1f}",
                f"{each.share_of_copy:.2f}",
            )
        )
    lines = [table(head, rows), "", "baselines: over a dense cache, storing nothing; ideal: dense keys over live ones"]
    if "window" in baselines:
        sizes = dict.fromkeys(str(each.window) for each in measured)
        lines.append(f"window: sparsec's kernel of the latest {', '.join(sizes)} keys, over its own cache, storing too")
    lines += launched_lines(measured)
    lines += dict.fromkeys(
        f"{baseline_label(name)} did not run: {why}" for each in measured for name, why in each.absent.items()
    )
    return "\n".join(lines)
