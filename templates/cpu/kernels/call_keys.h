#pragma once
#include "elements.h"

// ---- Where the keys and values of a tile lie: in the call's own tensors.
struct Source {
  StoredMatrix k, v;  // rows are positions
};

// For head h of sequence b; row `first` is at position 0.
template <class Call>
Source source_of(const Call& call, int64_t b, int64_t h, int64_t first) {
  const int64_t g = h / (HEADS / KV_HEADS);
  return {matrix<Stored>(call.k, call.k_stride, b, g, first), matrix<Stored>(call.v, call.v_stride, b, g, first)};
}

// Points at keys and values first .. first + count, in place or in `key` and `value`.
inline void point_tile(const Source& from, int, int first, int count, operand (*key)[row_of(D)],
                       operand (*value)[row_of(DV)], const operand** keys, const operand** values) {
  point<D>(from.k, first, count, key, keys);
  point<DV>(from.v, first, count, value, values);
}
