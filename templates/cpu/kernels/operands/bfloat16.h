#pragma once
#include <utility>

#include "floats.h"

// Intel's processors that have AVX-512 FP16 multiply pairs in their matrix unit: vdpbf16ps takes them longer than the
// products of floats do.
#if defined(__AVX512BF16__) && (defined(__AMX_BF16__) || !defined(__AVX512FP16__))
#include <immintrin.h>
#endif
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include <arm_neon.h>
#endif

// ---- Operands of bfloat16 tensors: pairs of elements where the processor multiplies these, else floats.
#if defined(__AVX512BF16__) && (defined(__AMX_BF16__) || !defined(__AVX512FP16__))
struct PairSums {
  static constexpr Name NAME = {"pairs of bfloat16, vdpbf16ps"};
#if defined(__AMX_BF16__)
  static constexpr bool OF_ROWS = false;  // the matrix unit is of no use to one row
#else
  static constexpr bool OF_ROWS = true;
#endif
  static vec add(vec sum, ivec a, ivec b) { return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b); }
  // Rounded to nearest, ties to even: all of a, then all of b.
  static ivec rounded(vec a, vec b) { return (ivec)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a); }
};
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
struct PairSums {
  static constexpr Name NAME = {"pairs of bfloat16, bfdot"};
  static constexpr bool OF_ROWS = true;
  static vec add(vec sum, ivec a, ivec b) {
    return (vec)vbfdotq_f32((float32x4_t)sum, (bfloat16x8_t)a, (bfloat16x8_t)b);
  }
  static ivec rounded(vec a, vec b) {
    return (ivec)vcvtq_high_bf16_f32(vcvtq_low_bf16_f32((float32x4_t)a), (float32x4_t)b);
  }
};
#endif

#if (defined(__AVX512BF16__) && (defined(__AMX_BF16__) || !defined(__AVX512FP16__))) || \
    defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
struct ElementPairs {
  typedef uint16_t operand;
  typedef ivec units;  // a pair in each lane
  static constexpr int DEPTH = 2, HALVES = 2 * LANES;
  static constexpr Name NAME = PairSums::NAME;
  static constexpr bool OF_ROWS = PairSums::OF_ROWS;  // whether single rows of q do well to meet keys in pairs
  typedef uint16_t halves __attribute__((vector_size(sizeof(ivec))));
  typedef std::make_integer_sequence<int, HALVES> Numbers;

  static units read(const uint16_t* from) {
    units x;
    std::memcpy(&x, from, sizeof x);
    return x;
  }
  static void write(uint16_t* to, units x) { std::memcpy(to, &x, sizeof x); }
  static units spread(const uint16_t* unit) {
    int32_t pair;
    std::memcpy(&pair, unit, sizeof pair);
    return splat(pair);
  }
  static vec add(vec sum, units a, units b) { return PairSums::add(sum, a, b); }

  static units narrowed(vec a, vec b) { return PairSums::rounded(a, b); }

  static void scale(uint16_t*, int, float) {}  // for that would round
  static vec scaled(vec sum, float factor) { return sum * factor; }

  // Halves N of a and b, those of b from HALVES on.
  template <int... N>
  static units pick(units a, units b) {
#if defined(__clang__)
    return (units)__builtin_shufflevector((halves)a, (halves)b, N...);
#else
    return (units)__builtin_shuffle((halves)a, (halves)b, halves{N...});
#endif
  }
  // Halves of a and b in turn: from half FIRST of a on, those of b APART after them.
  template <int FIRST, int APART, int... N>
  static units in_turn(units a, units b, std::integer_sequence<int, N...>) {
    return pick<(FIRST + N / 2 + N % 2 * APART)...>(a, b);
  }

  template <int N>
  static void store_two(const vec (&x)[2 * N], uint16_t* to, int) {
    EACH(n, N) {
      const units both = PairSums::rounded(x[n], x[N + n]);
      write(to + n * HALVES, in_turn<0, LANES>(both, both, Numbers()));
    }
  }
  template <int N>
  static void store_both(const vec (&x)[2 * N], uint16_t* pairs, uint16_t* rows, int width) {
    EACH(n, N) {
      const units both = PairSums::rounded(x[n], x[N + n]);
      write(pairs + n * HALVES, in_turn<0, LANES>(both, both, Numbers()));
      std::memcpy(rows + n * LANES, &both, sizeof both / 2);
      std::memcpy(rows + width + n * LANES, (const char*)&both + sizeof both / 2, sizeof both / 2);
    }
  }
  static units masked(units x, int32_t mask) { return x & mask; }
  static ivec seen(const ivec (*mask)[VECS], int v) { return (mask[0][v] & 0xffff) | (mask[1][v] & int(0xffff0000)); }
  static int32_t seen(const int32_t* mask) { return (mask[0] & 0xffff) | (mask[1] & int(0xffff0000)); }
  static ivec bits(units x, int n) { return n == 0 ? x << 16 : x; }
  static int32_t bits(const uint16_t* x) { return int32_t(uint32_t(*x) << 16); }

  template <int N, int COUNT>
  struct Across {  // of rows 2 n and 2 n + 1 pairs; their number is even
    uint16_t pairs[COUNT / 2][2 * N];
    const uint16_t* row[COUNT / 2];

    const uint16_t* const* of(const uint16_t* const* from, int count) {
      for (int n = 0; n < count / 2; ++n) {
        const uint16_t *a = from[2 * n], *b = from[2 * n + 1];
        uint16_t* to = pairs[n];
        row[n] = to;
        int d = 0;
        for (; d + HALVES <= N; d += HALVES) {
          const units x = read(a + d), y = read(b + d);
          write(to + 2 * d, in_turn<0, HALVES>(x, y, Numbers()));
          write(to + 2 * d + HALVES, in_turn<LANES, HALVES>(x, y, Numbers()));
        }
        for (; d < N; ++d) to[2 * d] = a[d], to[2 * d + 1] = b[d];
      }
      return row;
    }
  };
};
typedef ElementPairs Bfloat16Operands;
#else
typedef Floats Bfloat16Operands;
#endif
