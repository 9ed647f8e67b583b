#pragma once
#include "cache.h"
#include "nothing.h"

// ---- Where the keys and values of a tile lie: in the cache, or those of the call in its own tensors.
struct Source {
  StoredMatrix k, v;  // of the call; rows are positions
  StoredMatrix keys, values;  // of the cache; rows are slots
  const int32_t* places;  // of the head's group
  int head, length;  // keys before `length` are in the cache
  const stored *listed_keys, *listed_values;  // of all lists of kept keys
  bool listed;  // whether slots are entries of lists
};

// For head h of sequence b; row `first` is at position 0.
Source source_of(const sparsec_cached_call& call, int64_t b, int64_t h, int64_t first) {
  const int64_t g = h / (HEADS / KV_HEADS);
  return {matrix<Stored>(call.k, call.k_stride, b, g, first),
          matrix<Stored>(call.v, call.v_stride, b, g, first),
          arena<D>(call.keys, call, b),
          arena<DV>(call.values, call, b),
          places_of(call, g),
          int(h),
          call.lengths[b],
          call.kept ? (const stored*)call.kept->keys : nullptr,
          call.kept ? (const stored*)call.kept->values : nullptr,
          false};
}

// Points at one row of a matrix, as `point` does.
template <int N>
inline void point_at(const StoredMatrix& m, int row, operand (*packed)[row_of(N)], const operand** to) {
  if (row < 0) *to = NOTHING;
  else point<N>(m, row, 1, packed, to);
}

// Points at keys and values first .. first + count of `stop`, in place or in `key` and `value`.
inline void point_tile(const Source& from, int stop, int first, int count, operand (*key)[row_of(D)],
                       operand (*value)[row_of(DV)], const operand** keys, const operand** values) {
  int number[KEY_TILE], slot[KEY_TILE];
  for (int n = 0; n < count; ++n) number[n] = first + n;
  slots_of_keys(from.places, from.head, stop, number, count, slot);
  for (int n = 0; n < count; ++n) {
    const bool old = number[n] < from.length;
    const int row = old ? slot[n] : number[n];
    point_at<D>(old ? from.keys : from.k, row, key + n, keys + n);
    point_at<DV>(old ? from.values : from.v, row, value + n, values + n);
  }
}
