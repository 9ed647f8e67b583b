#pragma once
#include "../vectors.h"

// ---- Operands: what the micro-kernels multiply. A unit is DEPTH of them, neighbours in the dimension that is summed
// over; sums are float32.
struct Floats {
  typedef float operand;
  typedef vec units;  // one in each lane
  static constexpr int DEPTH = 1;
  static constexpr Name NAME = FLOATS;
  static constexpr bool OF_ROWS = false;

  static units read(const float* from) { return load(from); }
  static units spread(const float* unit) { return splat(*unit); }
  static vec add(vec sum, units a, units b) { return sum + a * b; }

  // A factor of the sums is either in one side of a product, here `count` vectors of units, or comes to the sums.
  static void scale(float* x, int count, float factor) {
    for (int n = 0; n < count; ++n, x += LANES) store(x, load(x) * factor);
  }
  static vec scaled(vec sum, float) { return sum; }

  // As operands two rows of N vectors, `width` operands apart, that are summed over.
  template <int N>
  static void store_two(const vec (&x)[2 * N], float* to, int width) {
    EACH(n, 2 * N) store(to + n / N * width + n % N * LANES, x[n]);
  }
  // The same of rows that are also units of neighbours within a row.
  template <int N>
  static void store_both(const vec (&x)[2 * N], float* to, float*, int width) {
    store_two<N>(x, to, width);
  }
  // The mask of a unit's operands, of a mask of each.
  static ivec seen(const ivec (*mask)[VECS], int v) { return mask[0][v]; }
  static int32_t seen(const int32_t* mask) { return mask[0]; }
  // The bits of operand n of each unit, as a float32 has them.
  static ivec bits(units x, int) { return (ivec)x; }
  static int32_t bits(const float* x) {
    int32_t to;
    std::memcpy(&to, x, sizeof to);
    return to;
  }

  static units masked(units x, int32_t mask) { return (units)((ivec)x & mask); }

  // COUNT rows of N operands, in units across the rows.
  template <int N, int COUNT>
  struct Across {
    const float* const* of(const float* const* row, int) { return row; }
  };
};
