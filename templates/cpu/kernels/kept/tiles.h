#pragma once
#include <algorithm>

#include "../printed/inputs.h"
#include "../tiles.h"

// ---- Keys of a list of kept ones for the rows of a query tile, KEY_TILE at a time.
// `live(i, j)` is the mask of rows i for key j.
template <class Work, class Live>
__attribute__((noinline)) void attend_kept(Work& w, const KeptList& list, const Live& live) {
  for (int64_t first = 0; first < list.count; first += KEY_TILE) {
    const int64_t entry = list.base + first;
    w.tile.count = int(std::min<int64_t>(KEY_TILE, list.count - first));
    point<D>(StoredMatrix{w.source.listed_keys, STORED_ROW<D>, 1}, entry, w.tile.count, w.key, w.tile.key);
    point<DV>(StoredMatrix{w.source.listed_values, STORED_ROW<DV>, 1}, entry, w.tile.count, w.value, w.tile.value);
    std::copy(list.position + entry, list.position + entry + w.tile.count, w.tile.at);
    const auto at = [&w, entry](int n) {
      w.inputs.entry = entry + n;
      return w.tile.at[n];
    };
    attend_seen(w, at, live);
  }
}
