#pragma once
#include "lookup.h"

// ---- A tree of the last `count` tokens: j comes before them, or is i or an ancestor of i.
struct Tree {
  const uint8_t* ancestors;
  int first, count;  // the position of the first token

  Tree(const Inputs& inputs, int n, int head)
      : ancestors(of_head<uint8_t>(inputs, n, head)),
        first(inputs.n_k - int(inputs.lookups[n].rows)),
        count(int(inputs.lookups[n].rows)) {}

  bool has(int i, int j) const {
    return j < first || (within(i - first, count) && within(j - first, count) &&
                         ancestors[int64_t(i - first) * count + j - first] != 0);
  }
  ivec pair(ivec i, int j) const {
    return by_lane(i, [this, j](int each) { return has(each, j); });
  }
  ivec pair(int i, ivec j) const {
    return by_lane(j, [this, i](int each) { return has(i, each); });
  }
  bool some(const Pairs& at) const { return at.j0 < first || at.i1 >= first; }
  bool every(const Pairs& at) const { return at.j1 < first; }
};
