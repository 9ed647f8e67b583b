#pragma once
#include "../waiting.h"
#include "list.h"

// ---- Listed keys for one row.
// Those of keys from .. to - 1; `live(i, j)` is the mask of keys j for row i; as many as a tile has are one turn.
template <class Row, class Live>
inline void attend_columns(Row& w, const Columns& columns, int from, int to, const Live& live) {
  const int stop = columns.before(minimum(to, w.end));
  for (int first = columns.before(maximum(from, w.begin)); first < stop; first += KEY_TILE) {
    if (!takes(w)) continue;
    for (int n = first; n < minimum(first + KEY_TILE, stop); n += LANES) {
      const ivec j = columns.lanes(n, stop);
      add_seen(w, j, live(w.i0, j) & (j >= w.begin) & (j < w.end) & keeps(w.modifiers[0], j));
    }
  }
}
