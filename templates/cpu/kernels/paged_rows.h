#pragma once
#include "paged_keys.h"

// Points at the keys and values at positions at[0 .. count - 1] as they are stored; their head dim is contiguous.
inline void point_rows(const Source& from, int, int, const int* at, int count, int*, const stored** key,
                       const stored** value) {
  for (int n = 0, stop; n < count; n = stop) {
    const int number = at[n] / from.size, first = number * from.size;
    for (stop = n + 1; stop < count && at[stop] >= first && at[stop] - first < from.size;) ++stop;  // of the page
    const int64_t page = page_of(from, number);
    const stored *k = from.k.data + page * from.k_page, *v = from.v.data + page * from.v_page;
    for (int m = n; m < stop; ++m) {
      key[m] = k + (at[m] - first) * from.k.row;
      value[m] = v + (at[m] - first) * from.v.row;
    }
  }
}
