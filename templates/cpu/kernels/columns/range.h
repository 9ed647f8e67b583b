#pragma once
#include <algorithm>

#include "../parts.h"
#include "list.h"

// ---- Listed keys in turn with the key tiles that hold them: those of one range of key tiles are one task's.
struct KeyRange {  // keys first .. stop - 1 of a part
  Part part;
  int first, stop;
};

// Calls `each` for the part of tiles first .. stop - 1 that lies in each part of the sequence.
template <class Call, class Each>
void by_parts(const Tiling<Call>& tiling, int64_t first, int64_t stop, const Each& each) {
  while (first < stop) {
    const Tile tile = tiling[first];
    const int64_t past =
        std::min(stop, *std::upper_bound(tiling.before.get(), tiling.before.get() + tiling.parts, first));
    const int keys = int(past - first) * KEY_TILE;
    each(KeyRange{tile.part, maximum(tile.base, tile.part.begin), minimum(tile.base + keys, tile.part.end)});
    first = past;
  }
}

struct Reach {  // tiles first .. stop - 1
  int first, stop;
};

// Listed keys of a range, KEY_TILE at a time as one tile has them. `reach(j0, j1)`: the query tiles of listed keys j0
// to j1; `live(j, i)` is the mask of keys j for query i.
template <class Work, class Listed, class ReachOf, class Live>
__attribute__((noinline)) void attend_columns(Work& w, const Listed& listed, const Columns& columns,
                                              const ReachOf& reach, const Live& live) {
  const KeyRange& range = listed.range;
  const int last = columns.before(range.stop);
  for (int n = columns.before(range.first); n < last; n += KEY_TILE) {
    int at[KEY_TILE];
    const int count = columns.take(n, last, range.first, range.stop, at);
    if (count == 0) continue;
    w.j0 = at[0], w.j1 = at[count - 1];
    listed.load(w, at, count);
    for (int lane = 0; lane < KEY_TILE; ++lane)  // below 0 where there is no key
      w.panel[lane / PANEL].at[lane % PANEL / LANES][lane % LANES] = lane < count ? at[lane] : -1;
    const Reach tiles = reach(w.j0, w.j1);
    const int stop = minimum(tiles.stop, quotient<QUERY_TILE>(w.end - 1) + 1);
    for (int tile = maximum(tiles.first, quotient<QUERY_TILE>(w.begin)); tile < stop; ++tile)
      attend_masked(w, tile, live);
    listed.add(w, at, count);
  }
}
