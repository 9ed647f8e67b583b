#pragma once
#include <algorithm>

#include "lookup.h"

// ---- Lists of rows: j // WIDTH is in the list of query i.
struct Entries {  // of one row, int64 or int32
  const void* entry;
  int64_t count;
  bool wide;

  // Entry n, or -1 where none of `known` is it.
  int at(int64_t n, int known) const {
    const int64_t number = wide ? ((const int64_t*)entry)[n] : ((const int32_t*)entry)[n];
    return (number >= 0) & (number < known) ? int(number) : -1;
  }
};

template <int WIDTH>
struct Lists {
  const char* lists;
  const int32_t* ordered;  // where pairs are asked
  int64_t rows, columns, q_row;
  bool wide;  // whether lists are int64

  Lists(const Inputs& inputs, int n, int head)
      : lists(inputs.lookups[n].first ? (const char*)of_head<int64_t>(inputs, n, head)
                                      : (const char*)of_head<int32_t>(inputs, n, head)),
        ordered(of_head<int32_t>(inputs, n + 1, head)),
        rows(inputs.lookups[n].rows),
        columns(inputs.lookups[n].columns),
        q_row(inputs.q_row),
        wide(inputs.lookups[n].first) {}

  // Entries of row i; none of a row that there is not.
  Entries own(int i) const {
    const int64_t row = i + q_row, size = wide ? sizeof(int64_t) : sizeof(int32_t);
    if (row < 0 || row >= rows) return {nullptr, 0, wide};
    return {lists + row * columns * size, columns, wide};
  }
  bool has(int i, int number) const {
    const int64_t row = i + q_row;
    if (row < 0 || row >= rows) return false;
    return std::binary_search(ordered + row * columns, ordered + (row + 1) * columns, number);
  }
  ivec pair(ivec i, int j) const {
    return by_lane(i, [this, j](int each) { return has(each, quotient<WIDTH>(j)); });
  }
  ivec pair(int i, ivec j) const {
    return by_lane(quotient<WIDTH>(j), [this, i](int each) { return has(i, each); });
  }
  bool some(const Pairs&) const { return true; }
  bool every(const Pairs&) const { return false; }
};
