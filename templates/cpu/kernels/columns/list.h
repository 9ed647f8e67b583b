#pragma once
#include "../inputs/counted.h"

// ---- Keys that an input lists for all queries, each once, in ascending order.
struct Columns {
  Counted<OfColumn<1>> marks;
  const int32_t* key;
  int count;

  Columns(const Inputs& inputs, int n, int head)
      : marks(inputs, n, head), key(of_head<int32_t>(inputs, n + 1, head)), count(int(inputs.lookups[n + 1].columns)) {}

  // How many of them come before key j.
  int before(int j) const { return minimum(maximum(marks.before[minimum(maximum(j, 0), marks.count)], 0), count); }

  // Those of numbers first .. stop - 1, KEY_TILE at most, that are keys begin .. end - 1, at `at`; returns how many.
  int take(int first, int stop, int begin, int end, int* at) const {
    int found = 0;
    for (int n = first; n < minimum(first + KEY_TILE, stop); ++n) {
      at[found] = key[n];
      found += (key[n] >= begin) & (key[n] < end);
    }
    return found;
  }

  // Those of LANES numbers from `first` on that come before number `stop`; below 0 in place of the others.
  ivec lanes(int first, int stop) const {
    ivec keys = splat(-1);
    std::memcpy(&keys, key + first, minimum(LANES, stop - first) * sizeof(int32_t));
    return keys;
  }
};
