#pragma once
#include "elements.h"

// ---- Where the keys and values of a tile lie: in the call's own tensors.
struct Source {
  Matrix k, v;  // rows are positions
};

// Points at keys and values first .. first + count, in place or in `key` and `value`.
inline void point_tile(const Source& from, int, int first, int count, float (*key)[D], float (*value)[D],
                       const float** keys, const float** values) {
  point(from.k, first, count, key, keys);
  point(from.v, first, count, value, values);
}
