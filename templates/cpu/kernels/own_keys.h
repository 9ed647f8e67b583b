#pragma once
#include <algorithm>

#include "waiting.h"

// ---- Lists of rows: the keys that row i lists itself.
// The keys n .. n + LANES - 1 of those that `own` lists, WIDTH an entry, with n a multiple of LANES; below 0 for one
// that there is not. `lane`: 0, 1, ..., LANES - 1.
template <int WIDTH>
inline ivec own_keys(const Entries& own, int64_t n, int n_k, ivec lane) {
  const int known = quotient<WIDTH>(n_k + WIDTH - 1);  // entries from 0 to here
  if constexpr (WIDTH % LANES == 0) {
    const int entry = own.at(quotient<WIDTH>(n), known);
    return entry < 0 ? splat(-1) : lane + (entry * WIDTH + int(n % WIDTH));
  }
  int32_t key[LANES];
  for (int lane = 0; lane < LANES; ++lane) {
    const int64_t at = n + lane, last = own.count * WIDTH - 1;
    const int entry = own.at(quotient<WIDTH>(std::min(at, last)), known);
    key[lane] = (at <= last) & (entry >= 0) ? entry * WIDTH + int(at % WIDTH) : -1;
  }
  ivec keys;
  std::memcpy(&keys, key, sizeof keys);
  return keys;
}

// `live(i, j)` is the mask of keys j for row i; as many keys as a tile has are one turn.
template <class Row, int WIDTH, class Live>
inline void attend_own(Row& w, const Lists<WIDTH>& lists, const Live& live) {
  const Entries own = lists.own(w.i0);
  for (int64_t first = 0, stop = own.count * WIDTH; first < stop; first += KEY_TILE) {
    if (!takes(w)) continue;
    for (int64_t n = first; n < std::min<int64_t>(first + KEY_TILE, stop); n += LANES) {
      const ivec j = own_keys<WIDTH>(own, n, w.n_k, w.lane[0]);
      add_seen(w, j, live(w.i0, j) & (j >= w.begin) & (j < w.end) & keeps(w.modifiers[0], j));
    }
  }
}
