"""Operators on the KV cache: liveness, the layout and its slot maps, and the cache as an object."""

from __future__ import annotations

from mutant import Operator


def _of(part: str, file: str, *operators: tuple[str, str, str]) -> tuple[Operator, ...]:
    return tuple(Operator(name, part, f"sparsec/{file}.py", before, after) for name, before, after in operators)


LIVENESS = _of(
    "cache layout",
    "ir/bands/liveness",
    ("reach one short", "return bound.unit - _integer(bound)", "return bound.unit - _integer(bound) - 1"),
    ("region ends at its first row", "(*band.upper, *band.last_row)", "(*band.upper, *band.first_row)"),
    ("region merged into a shorter-lived one",
     "        and (outer.reach is None or (inner.reach is not None and inner.reach <= outer.reach))\n", ""),
    ("shortest-lived region first", "-(region.reach or 0)", "(region.reach or 0)"),
    ("all keys from the latest start", "min(region.start for", "max(region.start for"),
    ("recent keys before the start forgotten", ", *(region for region in kept if not _within(region, whole))]", "]"),
    ("region starts one late", "start = max(start, _integer(bound))", "start = _integer(bound) + 1"),
)  # fmt: skip

LAYOUT = _of(
    "cache layout",
    "plan/kv/layout",
    ("kept one key less", "lasting = x.at_most(", "lasting = x.less("),
    ("one slot stored twice", "x.select(lasting, here, NOWHERE)", "here"),
    ("slots of the first phases negative", "run), number_expr(region.skipped))", "run), ZERO)"),
    ("ring one slot short", "x.minimum(reach, most)", "x.minimum(x.sub(reach, Int(1)), most)"),
    ("ring without room to roll back", "x.add(ROLLBACK, Int(region.reach))", "Int(region.reach)"),
    ("truncation may lose the oldest key", "x.add(LENGTH, ONE)", "x.add(LENGTH, Int(2))"),
)  # fmt: skip

PLAN = _of(
    "cache layout",
    "plan/kv/cached",
    ("cache of the group's first head alone", "for bands in distinct.values() for band",
     "for bands in list(distinct.values())[:1] for band"),
    ("groups' heads in turn", "bands_of[group * share : (group + 1) * share]",
     "lowered[group :: pattern.kv_heads]"),
    ("found by another group's numbers", "layout.groups[head // share] for head in part.heads",
     "layout.groups[head % pattern.kv_heads] for head in part.heads"),
    ("stored by another group's numbers", "layout.groups[group] for group in members",
     "layout.groups[group] for group in reversed(members)"),
    ("head constants of the class's first heads", "tuple(values[n] for n in members)", "values[: len(members)]"),
)  # fmt: skip

CACHE = _of(
    "cache",
    "runtime/kv/cache",
    ("truncation forgets what was overwritten", "torch.where(self.state[0] == 0, 0, self.state[1])",
     "self.state[0].clone()"),
    ("truncation counted from the present", "layout.first_lost(want, most,",
     "layout.first_lost(want, have,"),
    ("truncation on the host alone", "        self.lengths_tensor.copy_(self.state[0])\n", ""),
    ("reordered without its lengths", "self.state[:, rows.cpu()]", "self.state[:, : len(rows)]"),
    ("reordered without its values", "self.keys[there], self.values[there]",
     "self.keys[there], self.values[: len(there)]"),
)  # fmt: skip

ROWS = (
    *_of(
        "rows of a cache",
        "runtime/kv/live",
        ("released rows have tokens", "[0 if gone else own for", "[own for"),
        ("all rows of the batch are in use", "live if new == 1 else live * new", "live.new_full(live.shape, new)"),
    ),
    *_of(
        "rows of a cache",
        "runtime/kv/rows",
        ("a released list keeps its keys", "kept.lists[row, :, COUNT].zero_()", "pass"),
        ("an admitted sequence has lost nothing", "cache.state[:RELEASED, row] = given.state[:RELEASED, 0]",
         "cache.state[0, row] = given.length"),
    ),
    *_of(
        "rows of a cache",
        "runtime/kv/growth",
        ("room for the shortest sequence", "else counts)).max())", "else counts)).min())"),
        ("grown without its values", "values[:, target : target + held] = cache.values[:, base : base + held]", "pass"),
    ),
)  # fmt: skip

KEEP = (
    *_of(
        "kept keys",
        "runtime/kv/keep",
        ("a kept key forgotten a query early", "position + region.reach > lengths",
         "position + region.reach > lengths + 1"),
        ("marks of every input taken away", "each.there & marks if each.ordinal == number else each.there",
         "each.there & marks"),
        ("keys too far back come back", "record[DROPPED_AT] = lengths", "record[DROPPED_AT] = 0"),
    ),
    *_of(
        "kept keys",
        "runtime/kv/lists",
        ("a kept key after truncation", "kept.entries[0, entry] < lengths", "kept.entries[0, entry] <= lengths"),
        ("marks of the wrong word", "range(part.shape[2])", "reversed(range(part.shape[2]))"),
        ("padding is kept", " & (row >= 0)[:, None]", ""),
    ),
    *_of(
        "kept keys",
        "runtime/kv/cache",
        ("keys that a full cache had lost", "want < record[KEPT_AT]", "want < 0"),
    ),
)  # fmt: skip

MERGE = _of(
    "merged keys",
    "runtime/kv/merge",
    ("a merged key weighs as one", "most.nan_to_num(neginf=0).to(wide) + sums.log()", "most.to(wide)"),
    ("merged keys count as one each", "(weights - most.nan_to_num(neginf=0)[number]).exp().to(wide)",
     "torch.ones_like(weights).to(wide)"),
    ("where the first of a group stood", '"amax")\n    return _Groups', '"amin")\n    return _Groups'),
    ("a merged key that is seen anyway", "beside |= of_group & ", "beside |= ~of_group & of_group & "),
    ("merged keys come apart", "kept.record[DROPPED_AT, b.cpu()] = torch.tensor(cache.lengths)[b.cpu()]", "pass"),
)  # fmt: skip

PAGES = _of(
    "dead pages",
    "plan/kv/pages",
    ("a page dead a key early", "x.at_most(end, needed_within(", "x.at_most(x.sub(end, Int(1)), needed_within("),
)  # fmt: skip

OPERATORS = (*LIVENESS, *LAYOUT, *PLAN, *CACHE, *ROWS, *KEEP, *MERGE, *PAGES)
