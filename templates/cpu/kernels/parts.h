#pragma once
#include <algorithm>
#include <memory>
#include <new>

#include "printed/documents.h"
#include "vectors.h"

struct Tile {
  Part part;
  int base;  // positions base .. base + size - 1 of the part, as far as it has them
  int64_t number;  // of the part
};

// The tiles of every part's queries (or keys), part after part; a tile starts at a multiple of its size.
template <class Call>
struct Tiling {
  const Call& call;
  const int size;
  const bool of_keys;
  const int64_t parts;
  const std::unique_ptr<int64_t[]> before;  // tiles before each part; null if memory ran out

  Tiling(const Call& call, int size, bool of_keys)
      : call(call),
        size(size),
        of_keys(of_keys),
        parts(count_parts(call)),
        before(new (std::nothrow) int64_t[parts + 1]) {
    if (!before) return;
    before[0] = 0;
    for (int64_t n = 0; n < parts; ++n) {
      const Part part = part_of(call, n);
      const int stop = of_keys ? part.end : part.q1;
      before[n + 1] =
          before[n] + (first(part) < stop ? floor_div(stop - 1, size) - floor_div(first(part), size) + 1 : 0);
    }
  }
  int first(const Part& part) const { return of_keys ? part.begin : part.q0; }
  int64_t count() const { return before[parts]; }
  Tile operator[](int64_t n) const {
    const int64_t* after = std::upper_bound(before.get(), before.get() + parts + 1, n);
    const int64_t number = after - before.get() - 1;
    const Part part = part_of(call, number);
    return {part, (floor_div(first(part), size) + int(n - after[-1])) * size, number};
  }
};
