#pragma once
#include "cached_keys.h"

// Points at the keys and values at positions at[0 .. count - 1] as they are stored, in the cache for head `head` or in
// the call's tensors, whose head dim is contiguous; `slot` is scratch. `stop`: as of `slots_of_keys`.
inline void point_rows(const Source& from, int head, int stop, const int* at, int count, int* slot, const stored** key,
                       const stored** value) {
  if (from.listed) {  // the entries are in `slot`
    for (int n = 0; n < count; ++n) {
      key[n] = from.listed_keys + int64_t(slot[n]) * STORED_ROW<D>;
      value[n] = from.listed_values + int64_t(slot[n]) * STORED_ROW<DV>;
    }
    return;
  }
  slots_of_keys(from.places, head, stop, at, count, slot);
  int last = 0;
  for (int n = 0; n < count; ++n) last = maximum(last, at[n]);
  if (last < from.length) {  // all are in the cache, whose rows have a known length
    for (int n = 0; n < count; ++n) key[n] = from.keys.data + int64_t(maximum(slot[n], 0)) * STORED_ROW<D>;
    for (int n = 0; n < count; ++n) value[n] = from.values.data + int64_t(maximum(slot[n], 0)) * STORED_ROW<DV>;
    return;
  }
  for (int n = 0; n < count; ++n) {
    const bool old = at[n] < from.length;
    const int64_t row = old ? maximum(slot[n], 0) : at[n];
    key[n] = (old ? from.keys : from.k).data + row * (old ? from.keys : from.k).row;
    value[n] = (old ? from.values : from.v).data + row * (old ? from.values : from.v).row;
  }
}
