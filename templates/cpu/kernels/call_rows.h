#pragma once
#include "call_keys.h"

// Points at the keys and values at positions at[0 .. count - 1] as they are stored; their head dim is contiguous.
inline void point_rows(const Source& from, int, int, const int* at, int count, int*, const stored** key,
                       const stored** value) {
  for (int n = 0; n < count; ++n) {
    key[n] = from.k.data + at[n] * from.k.row;
    value[n] = from.v.data + at[n] * from.v.row;
  }
}
