#pragma once
#include <algorithm>

#include "../waiting.h"

// ---- Keys of a list of kept ones, of which LANES lie one after another.
// Lets those of the entries from `entry` on wait that are seen.
inline void add_kept(Waiting& w, ivec keys, ivec seen, int64_t entry) {
  if (!any(~seen)) {
    const ivec slots = w.lane[0] + int(entry);
    std::memcpy(w.at + w.waiting, &keys, sizeof keys);
    std::memcpy(w.slot + w.waiting, &slots, sizeof slots);
    w.waiting += LANES;
    return;
  }
  for (int n = 0; n < LANES; ++n) {
    w.at[w.waiting] = keys[n];
    w.slot[w.waiting] = int(entry) + n;
    w.waiting -= seen[n];
  }
}

// `live(i, j)` is the mask of keys j for row i; as many keys as a tile has are one turn.
template <class Row, class Live>
inline void attend_kept(Row& w, const KeptList& list, const Live& live) {
  attend(w);
  w.source.listed = true;
  for (int64_t first = 0; first < list.count; first += KEY_TILE) {
    if (!takes(w)) continue;
    const int64_t stop = std::min<int64_t>(first + KEY_TILE, list.count);
    for (int64_t n = first; n < stop; n += LANES) {
      ivec j;
      w.inputs.entry = list.base + n;
      std::memcpy(&j, list.position + w.inputs.entry, sizeof j);
      add_kept(w, j, live(w.i0, j) & (w.lane[0] < int(stop - n)), w.inputs.entry);
    }
  }
  attend(w);
  w.source.listed = false;
}
