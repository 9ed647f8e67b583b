#pragma once
#include "lookup.h"

// ---- Labels: those of query i and of key j are equal, and not negative.
struct Labels {
  const int32_t *of_queries, *of_keys;
  int64_t queries, keys, q_row, k_row;

  Labels(const Inputs& inputs, int n, int head)
      : of_queries(of_head<int32_t>(inputs, n, head)),
        of_keys(of_head<int32_t>(inputs, n + 1, head)),
        queries(inputs.lookups[n].columns),
        keys(inputs.lookups[n + 1].columns),
        q_row(inputs.q_row),
        k_row(inputs.k_row) {}

  int query(int i) const { return within(int(i + q_row), queries) ? of_queries[i + q_row] : -1; }
  int key(int j) const { return within(int(j + k_row), keys) ? of_keys[j + k_row] : -1; }
  ivec pair(ivec i, int j) const {
    const int label = key(j);
    return by_lane(i, [this, label](int each) { return (label >= 0) & (query(each) == label); });
  }
  ivec pair(int i, ivec j) const {
    const int label = query(i);
    return by_lane(j, [this, label](int each) { return (label >= 0) & (key(each) == label); });
  }

  struct Range {
    int least, most;
  };
  template <class Of>
  static Range range(int first, int last, const Of& label) {
    Range found = {label(first), label(first)};
    for (int n = first + 1; n <= last; ++n) {
      const int next = label(n);
      found = {minimum(found.least, next), maximum(found.most, next)};
    }
    return found;
  }
  Range of_rows(const Pairs& at) const {
    return range(at.i0, at.i1, [this](int i) { return query(i); });
  }
  Range of_columns(const Pairs& at) const {
    return range(at.j0, at.j1, [this](int j) { return key(j); });
  }
  bool some(const Pairs& at) const {
    const Range rows = of_rows(at), columns = of_columns(at);
    return maximum(maximum(rows.least, columns.least), 0) <= minimum(rows.most, columns.most);
  }
  bool every(const Pairs& at) const {
    const Range rows = of_rows(at), columns = of_columns(at);
    return rows.least >= 0 && rows.least == columns.most && rows.most == columns.least;
  }
};
