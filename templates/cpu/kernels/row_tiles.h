#pragma once
#include "waiting.h"

// ---- Tiles of a row's keys.
// Whether a full tile is not the row's own matter: over pages alone.
template <class Row>
inline bool is_shared(Row&, int) {
  return false;
}

template <class Row>
inline void attend_full(Row& w, int tile) {
  if (is_shared(w, tile) || !takes(w)) return;
  const int count = minimum(tile * KEY_TILE + KEY_TILE, w.end) - tile * KEY_TILE;
  if constexpr (Modifiers::KEYS) {
    for (int n = 0; n < count; n += LANES) {
      const ivec j = w.lane[0] + (tile * KEY_TILE + n);
      add_seen(w, j, keeps(w.modifiers[0], j) & (j < w.end));
    }
    return;
  }
  for (int n = 0; n < count; ++n) w.at[w.waiting + n] = tile * KEY_TILE + n;
  w.waiting += count;
}

// `live(j, i)` is the mask of keys j for row i.
template <class Row, class Live>
inline void attend_masked(Row& w, int tile, const Live& live) {
  if (!takes(w)) return;
  for (int first = tile * KEY_TILE; first < minimum(tile * KEY_TILE + KEY_TILE, w.end); first += PANEL) EACH(v, VECS) {
      const ivec j = w.lane[v] + first;
      add_seen(w, j, live(j, w.i0) & keeps(w.modifiers[0], j) & (j < w.end));
    }
}
