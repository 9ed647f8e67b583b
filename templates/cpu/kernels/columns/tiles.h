#pragma once
#include "../tiles.h"
#include "list.h"

// ---- Listed keys for the rows of a query tile, KEY_TILE at a time, as one tile has them.
// Those of keys from .. to - 1; `live(i, j)` is the mask of rows i for key j.
template <class Live>
__attribute__((noinline)) void attend_columns(Work& w, const Columns& columns, int from, int to, const Live& live) {
  const int stop = columns.before(minimum(to, w.end));
  for (int first = columns.before(maximum(from, w.begin)); first < stop; first += KEY_TILE) {
    w.tile.count = columns.take(first, stop, w.begin, w.end, w.tile.at);
    for (int n = 0; n < w.tile.count; ++n)
      point_tile(w.source, w.n_k, w.tile.at[n], 1, w.key + n, w.value + n, w.tile.key + n, w.tile.value + n);
    attend_seen(w, [&w](int n) { return w.tile.at[n]; }, live);
  }
}
