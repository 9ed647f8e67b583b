#pragma once
#include <algorithm>

#include "lookup.h"

// ---- Lists of rows: j // WIDTH is in the list of query i.
struct Entries {
  const int32_t* entry;
  int64_t count;
};

template <int WIDTH>
struct Lists {
  const int32_t *lists, *ordered;  // `ordered`: where pairs are asked
  int64_t rows, columns, q_row;

  Lists(const Inputs& inputs, int n, int head)
      : lists(of_head<int32_t>(inputs, n, head)),
        ordered(of_head<int32_t>(inputs, n + 1, head)),
        rows(inputs.lookups[n].rows),
        columns(inputs.lookups[n].columns),
        q_row(inputs.q_row) {}

  Entries of(const int32_t* from, int i) const {
    const int64_t row = i + q_row;
    if (row < 0 || row >= rows) return {nullptr, 0};
    return {from + row * columns, columns};
  }
  bool has(int i, int number) const {
    const Entries row = of(ordered, i);
    return std::binary_search(row.entry, row.entry + row.count, number);
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
