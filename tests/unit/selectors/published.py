"""The published rules of selectors, pair by pair in plain numbers: what the selectors of the examples are held against.

Each takes one head, as lists of rows: keys `k` from position 0 on, and queries `q`, the last of which stands at the
last key.
Invariant: no rule shares code with a selector.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

Rows = Sequence[Sequence[float]]
Tile = tuple[int, int]


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def softmax(scores: Iterable[float]) -> list[float]:
    scores = list(scores)
    top = max(scores)
    powers = [math.exp(score - top) for score in scores]
    return [power / math.fsum(powers) for power in powers]


def mean(rows: Rows) -> list[float]:
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def fewest(mass: dict[object, float], share: float, before: Iterable[object] = ()) -> set[object]:
    """The largest masses, as few as hold `share` of all; those `before` are taken in any case."""
    taken = set(before)
    for key in sorted(mass, key=lambda key: -mass[key]):
        if math.fsum(mass[each] for each in taken) >= share * math.fsum(mass.values()):
            break
        taken.add(key)
    return taken


def attention_of_last(q: Rows, k: Rows, count: int) -> dict[Tile, float]:
    """The probability of each pair (i, j) of the last `count` queries."""
    found = {}
    for i, row in list(enumerate(q, len(k) - len(q)))[-count:]:
        for j, p in enumerate(softmax(dot(row, k[j]) / math.sqrt(len(row)) for j in range(i + 1))):
            found[i, j] = p
    return found


def minference(q: Rows, k: Rows, vertical: int, slash: int) -> tuple[set[int], set[int]]:
    """Columns and distances."""
    pairs = attention_of_last(q, k, 64)
    columns = {j: math.inf if j < 30 else 0.0 for j in range(len(k))}
    distances = {d: math.inf if d < 100 else 0.0 for d in range(len(k))}
    for (i, j), p in pairs.items():
        columns[j] += p
        distances[i - j] += p
    picked = (sorted(mass, key=lambda key: -mass[key]) for mass in (columns, distances))
    kept_columns, kept_distances = picked
    return set(kept_columns[: max(vertical, 30)]), set(kept_distances[: max(slash, 50)])


def minference_blocks(q: Rows, k: Rows, block: int, top: int) -> set[Tile]:
    first = len(k) - len(q)
    pooled_q, pooled_k = ({}, {})
    for pooled, rows, start in ((pooled_q, q, first), (pooled_k, k, 0)):
        for place, row in enumerate(rows, start):
            pooled.setdefault(place // block, []).append(row)
    sums = [
        {at: [math.fsum(column) for column in zip(*rows, strict=True)] for at, rows in pooled.items()}
        for pooled in (pooled_q, pooled_k)
    ]
    found = set()
    for a, row in sums[0].items():
        before = [b for b in sums[1] if b <= a]
        found |= {(a, b) for b in sorted(before, key=lambda b: -dot(row, sums[1][b]))[:top]}
    return found


def flexprefill(q: Rows, k: Rows, gamma: float, tau: float, block: int) -> tuple[bool, set[int], set[int], set[Tile]]:
    """Whether the head is query-aware; its key blocks, block distances and tiles, without those that all heads take."""
    first, blocks = len(k) - len(q), range((len(k) + block - 1) // block)
    pairs = attention_of_last(q, k, block)
    count = min(block, len(q))
    columns, distances = dict.fromkeys(blocks, 0.0), dict.fromkeys(blocks, 0.0)
    for (i, j), p in pairs.items():
        columns[j // block] += p / count
        distances[(i - j) // block] += p / count
    means = [mean(k[b * block : (b + 1) * block]) for b in blocks]
    guess = softmax(dot(mean(q[-count:]), row) / math.sqrt(len(row)) for row in means)
    mixed = [(guess[b] + columns[b]) / 2 for b in blocks]
    parts = [p * math.log(p / m) for p, m in zip([*guess, *columns.values()], mixed * 2, strict=True) if p > 0]
    if math.sqrt(max(math.fsum(parts) / 2, 0)) >= tau:
        return False, fewest(columns, gamma), fewest(distances, gamma), set()
    tiles: dict[object, float] = {}
    for a in range(first // block, blocks.stop):
        rows = [row for i, row in enumerate(q, first) if i // block == a]
        shares = softmax(dot(mean(rows), means[b]) / math.sqrt(len(means[b])) for b in range(a + 1))
        tiles |= {(a, b): share for b, share in enumerate(shares)}
    return True, set(), set(), fewest(tiles, gamma)


def xattention(q: Rows, k: Rows, threshold: float, stride: int, block: int) -> set[Tile]:
    first, width = len(k) - len(q), len(k[0])
    zero = [0.0] * width

    def query(i: int) -> Sequence[float]:
        return q[i - first] if 0 <= i - first < len(q) else zero

    def key(j: int) -> Sequence[float]:
        return k[j] if j < len(k) else zero

    mass: dict[int, dict[object, float]] = {}
    for group in range(first // stride, (len(k) + stride - 1) // stride):
        scores = []
        for other in range(group + 1):
            pairs = ((group * stride + stride - 1 - t, other * stride + t) for t in range(stride))
            scores.append(math.fsum(dot(query(i), key(j)) for i, j in pairs) / (math.sqrt(width) * stride))
        row = mass.setdefault(group * stride // block, {})
        for other, p in enumerate(softmax(scores)):
            row[other * stride // block] = row.get(other * stride // block, 0.0) + p
    return {(a, b) for a, row in mass.items() for b in fewest(row, threshold, {0, a})}


def quest(q: Sequence[float], k: Rows, budget: int, page: int) -> set[int]:
    """The pages before the newest that one query at the end of the keys takes."""
    newest = (len(k) - 1) // page
    bounds = {}
    for b in range(newest):
        rows = k[b * page : (b + 1) * page]
        bounds[b] = math.fsum(
            max(x * min(column), x * max(column)) for x, column in zip(q, zip(*rows, strict=True), strict=True)
        )
    return set(sorted(bounds, key=lambda b: -bounds[b])[: budget - 1])


def moba(q: Sequence[float], k: Rows, position: int, top: int, chunk: int) -> set[int]:
    """The chunks that a query takes, its own among them."""
    own = position // chunk
    gate = {b: dot(q, mean(k[b * chunk : (b + 1) * chunk])) for b in range(own)}
    gate[own] = math.inf
    return set(sorted(gate, key=lambda b: -gate[b])[:top])


def snapkv(heads: Sequence[Rows], k: Rows, keys: int, window: int, kernel: int) -> set[int]:
    """The keys that a KV group keeps, for the queries of its heads."""
    n, half = len(k), kernel // 2
    votes = dict.fromkeys(range(n - window), 0.0)
    for q in heads:
        pairs = attention_of_last(q, k, window)
        mean = [math.fsum(pairs.get((i, j), 0.0) for i in range(n - window, n)) / window for j in votes]
        for j in votes:
            votes[j] += math.fsum(mean[max(0, j - half) : j + half + 1]) / kernel / len(heads)
    voted = sorted(votes, key=lambda j: -votes[j])[: keys - window]
    return {*voted, *range(n - window, n)}


def h2o(heads: Sequence[Rows], k: Rows, keys: int, recent: int) -> set[int]:
    """The keys that a KV group keeps, likewise."""
    n = len(k)
    mass = dict.fromkeys(range(n - recent), 0.0)
    for q in heads:
        for (_, j), p in attention_of_last(q, k, len(q)).items():
            if j in mass:
                mass[j] += p
    heavy = sorted(mass, key=lambda j: -mass[j])[: keys - recent]
    return {*heavy, *range(n - recent, n)}


def adakv(scores: Sequence[Sequence[float]], each: int, floor: float) -> list[set[int]]:
    """The keys of each KV group of a layer, whose even part is `each`: those that it keeps in any case, and then the
    best of all groups."""
    sure = max(1, int(floor * each)) if floor else 0
    kept = [set(sorted(range(len(row)), key=lambda j: -row[j])[:sure]) for row in scores]
    ranked = sorted(((s, g, j) for g, row in enumerate(scores) for j, s in enumerate(row)), reverse=True)
    for _, g, j in ranked:
        if sum(map(len, kept)) < each * len(scores):
            kept[g].add(j)
    return kept


def pyramidkv(keys: float, layers: int, longest: float, beta: float) -> list[float]:
    """The keys of each layer, of `longest` there are, for a mean of `keys`."""
    least = keys / beta
    most = keys * 2 - least
    if most > longest:
        most, least = longest, keys * 2 - longest
    return [most - layer * (most - least) / (layers - 1) for layer in range(layers)]
