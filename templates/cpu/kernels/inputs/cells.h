#pragma once
#include "lookup.h"

// ---- Cells of HEIGHT queries and WIDTH keys: the one that holds (i, j) is set.
template <int HEIGHT, int WIDTH>
struct Cells {
  const uint8_t* cells;
  int first;  // the number of the first row
  int64_t rows, columns;

  Cells(const Inputs& inputs, int n, int head)
      : cells(of_head<uint8_t>(inputs, n, head)),
        first(quotient<HEIGHT>(inputs.first_query)),
        rows(inputs.lookups[n].rows),
        columns(inputs.lookups[n].columns) {}

  bool at(int row, int column) const {
    return within(row, rows) && within(column, columns) && cells[row * columns + column] != 0;
  }
  ivec pair(ivec i, int j) const {
    const ivec row = quotient<HEIGHT>(i) - first;
    const int column = quotient<WIDTH>(j);
    if (!any(row ^ splat(row[0]))) return mask_of(at(row[0], column));
    return by_lane(row, [this, column](int each) { return at(each, column); });
  }
  ivec pair(int i, ivec j) const {
    const ivec column = quotient<WIDTH>(j);
    const int row = quotient<HEIGHT>(i) - first;
    if (!any(column ^ splat(column[0]))) return mask_of(at(row, column[0]));
    return by_lane(column, [this, row](int each) { return at(row, each); });
  }

  // Whether a cell that meets these pairs is set, or not set.
  bool meets(const Pairs& pairs, bool set) const {
    for (int row = quotient<HEIGHT>(pairs.i0); row <= quotient<HEIGHT>(pairs.i1); ++row)
      for (int column = quotient<WIDTH>(pairs.j0); column <= quotient<WIDTH>(pairs.j1); ++column)
        if (at(row - first, column) == set) return true;
    return false;
  }
  bool some(const Pairs& pairs) const { return meets(pairs, true); }
  bool every(const Pairs& pairs) const { return !meets(pairs, false); }
};
