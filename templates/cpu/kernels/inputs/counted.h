#pragma once
#include "lookup.h"

// ---- Picked numbers of pairs, by prefix counts: of a range of numbers one difference says how many are picked.
template <int WIDTH>
struct OfColumn {  // j // WIDTH
  template <class I, class J>
  static J number(I, J j) {
    return quotient<WIDTH>(j);
  }
  static int least(const Pairs& at) { return quotient<WIDTH>(at.j0); }
  static int most(const Pairs& at) { return quotient<WIDTH>(at.j1); }
};

template <int SIZE>
struct OfDistance {  // i // SIZE - j // SIZE
  template <class I, class J>
  static ivec number(I i, J j) {
    return quotient<SIZE>(i) - quotient<SIZE>(j);
  }
  static int least(const Pairs& at) { return quotient<SIZE>(at.i0) - quotient<SIZE>(at.j1); }
  static int most(const Pairs& at) { return quotient<SIZE>(at.i1) - quotient<SIZE>(at.j0); }
};

template <int HEIGHT>
struct OfTile {  // i // HEIGHT * HEIGHT - j
  template <class I, class J>
  static ivec number(I i, J j) {
    return quotient<HEIGHT>(i) * HEIGHT - j;
  }
  static int least(const Pairs& at) { return quotient<HEIGHT>(at.i0) * HEIGHT - at.j1; }
  static int most(const Pairs& at) { return quotient<HEIGHT>(at.i1) * HEIGHT - at.j0; }
};

template <class Of>
struct Counted {
  const int32_t* before;  // before[n]: how many of the first n numbers are picked
  int first, count;  // the first of `count` numbers

  Counted(const Inputs& inputs, int n, int head) : Counted(inputs, n, head, int(inputs.lookups[n].first)) {}
  Counted(const Inputs& inputs, int n, int head, int first)
      : before(of_head<int32_t>(inputs, n, head)), first(first), count(int(inputs.lookups[n].columns) - 1) {}

  bool has(int number) const {
    const int at = minimum(maximum(number - first, 0), count), next = minimum(at + 1, count);
    return (number >= first) & (before[next] > before[at]);
  }
  ivec has(ivec number) const {
    return by_lane(number, [this](int each) { return has(each); });
  }
  int picked(int least, int most) const {
    const int start = maximum(least - first, 0), stop = minimum(most - first + 1, count);
    return start < stop ? int(uint32_t(before[stop]) - uint32_t(before[start])) : 0;  // counts may be any numbers
  }

  template <class I, class J>
  ivec pair(I i, J j) const {
    return mask_of(has(Of::number(i, j)));
  }
  bool some(const Pairs& at) const { return picked(Of::least(at), Of::most(at)) > 0; }
  bool every(const Pairs& at) const {
    const int least = Of::least(at), most = Of::most(at);
    return picked(least, most) == most - least + 1;
  }
};

// Key j is marked, by its row.
struct Marked : Counted<OfColumn<1>> {
  Marked(const Inputs& inputs, int n, int head) : Counted(inputs, n, head, -int(inputs.k_row)) {}
};
