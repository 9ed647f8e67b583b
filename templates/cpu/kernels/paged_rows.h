#pragma once
#include "paged_keys.h"

// Points at the keys and values at positions at[0 .. count - 1] as they are stored; their head dim is contiguous.
inline void point_rows(const Source& from, int, int, const int* at, int count, int*, const stored** key,
                       const stored** value) {
  const stored *k = nullptr, *v = nullptr;  // of the page at hand, which has the keys first .. first + size - 1
  int first = -from.size;
  for (int n = 0; n < count; ++n) {
    if (at[n] < first || at[n] - first >= from.size) {
      const int number = at[n] / from.size;
      const int64_t page = page_of(from, number);
      first = number * from.size;
      k = from.k.data + page * from.k_page, v = from.v.data + page * from.v_page;
    }
    key[n] = k + (at[n] - first) * from.k.row;
    value[n] = v + (at[n] - first) * from.v.row;
  }
}
