#pragma once
#include "lookup.h"

// ---- Lengths: one number, not negative, that bounds keys, queries or distances.
inline int length_of(const Inputs& inputs, int n, int head) { return *of_head<int32_t>(inputs, n, head); }

struct KeyBelow {  // j < length
  int length;
  KeyBelow(const Inputs& inputs, int n, int head) : length(length_of(inputs, n, head)) {}
  template <class I, class J>
  ivec pair(I, J j) const {
    return mask_of(j < length);
  }
  bool some(const Pairs& at) const { return at.j0 < length; }
  bool every(const Pairs& at) const { return at.j1 < length; }
};

struct QueryBelow {  // i < length
  int length;
  QueryBelow(const Inputs& inputs, int n, int head) : length(length_of(inputs, n, head)) {}
  template <class I, class J>
  ivec pair(I i, J) const {
    return mask_of(i < length);
  }
  bool some(const Pairs& at) const { return at.i0 < length; }
  bool every(const Pairs& at) const { return at.i1 < length; }
};

struct Near {  // i - j < length, and length is not 0
  int length;
  Near(const Inputs& inputs, int n, int head) : length(length_of(inputs, n, head)) {}
  template <class I, class J>
  ivec pair(I i, J j) const {
    return mask_of(i - j < length) & truth(length > 0);
  }
  bool some(const Pairs& at) const { return length > 0 && at.i0 - at.j1 < length; }
  bool every(const Pairs& at) const { return length > 0 && at.i1 - at.j0 < length; }
};
