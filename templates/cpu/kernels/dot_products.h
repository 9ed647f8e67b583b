#pragma once
#include <algorithm>
#include <utility>

#include "elements.h"
#include "printed/tuned_dot_products.h"
#include "vectors.h"

// ---- Dot products: lanes along the head dim, in steps of STEP elements; keys widen in registers.
constexpr int PARTS = sizeof(float) / sizeof(stored),
              STEP = PARTS * LANES;  // a vector in memory becomes PARTS vectors
template <int N>
struct Steps {  // of a row of N numbers: WHOLE steps, REST numbers more, WIDE numbers once widened
  static constexpr int WHOLE = N / STEP, REST = N % STEP, WIDE = (WHOLE + (REST > 0)) * STEP;
};
typedef Steps<D> KeySteps;
typedef Steps<DV> ValueSteps;
constexpr int SUMS = LANES == 8 ? 8 : 16;  // vectors of sums that fit in registers beside their operands
// Keys from the one at hand to the one to fetch.
constexpr int AHEAD = std::max(SUMS, std::min(64, BYTES_AHEAD / int(STORED_ROW<D> * sizeof(stored))));
constexpr int SPARE = AHEAD + SUMS;  // addresses after those of keys at hand that may be read
constexpr int HELD_BACK = (AHEAD + PANEL - 1) / PANEL * PANEL;  // keys that wait on when others are taken
constexpr int AT_ONCE = 256;  // keys that a row takes at a time
constexpr int BATCH = (AT_ONCE + KEY_TILE - 1) / KEY_TILE * KEY_TILE + HELD_BACK;  // keys that wait at most

// Where element d of a row lies once widened: where no instruction keeps their order, neighbours go to the same lane of
// different vectors, without a shuffle.
inline int wide_place(int d) { return WIDE_IN_ORDER ? d : d / STEP * STEP + d % PARTS * LANES + d % STEP / PARTS; }

template <int REST>
inline void wide_rest(const stored* from, vec (&to)[PARTS]) {
  stored padded[STEP] = {};
  std::memcpy(padded, from, REST * sizeof *padded);
  wide(padded, to);
}

// A lane of the result whose number lacks the bit W has the sum of two lanes of a, its own and the one whose number has
// the bit; each other one likewise of b.
template <int W, int... N>
inline vec half_sums(vec a, vec b, std::integer_sequence<int, N...>) {
  const ivec of_b = {truth(N & W)...};
  const vec own = of_b ? b : a, other = of_b ? a : b;
  return own + pick<(N ^ W)...>(other, other);
}

// Lane n of the result is the sum of the lanes of x[n].
template <int W = LANES / 2>
inline vec add_lanes(const vec* x) {
  vec sums[W];
  EACH(n, W) sums[n] = half_sums<W>(x[n], x[n + W], std::make_integer_sequence<int, LANES>());
  if constexpr (W == 1) return sums[0];
  else return add_lanes<W / 2>(sums);
}

// Always inlined: GCC leaves calls out of functions that do nothing but fetch.
template <int N>
__attribute__((always_inline)) inline void fetch(const stored* row) {
  for (size_t d = 0; d < STORED_ROW<N> * sizeof *row; d += 64) __builtin_prefetch((const char*)row + d, 0, 2);
}

// What comes from memory while row n is at hand: the row AHEAD after it in a list of `count` rows of N numbers, after
// which come those of `then`, of M numbers, so that memory is never idle; and once more when it is near, for a
// processor that has much to fetch forgets some.
template <int N, int M>
struct RowsThen {
  const stored *const *row, *const *then;
  int count;
  __attribute__((always_inline)) void operator()(int n) const {
    EACH(twice, 2) {
      const int m = n + (twice == 0 ? AHEAD : AHEAD / 2);
      if (m < count) fetch<N>(row[m]);
      else fetch<M>(then[m - count]);
    }
  }
};

// What q and the weights of a row are, and how they meet stored rows: floats, for which these are widened.
struct WidenedRows {
  typedef float number;  // of q
  static constexpr Name NAME = FLOATS;
  struct Units {  // STEP numbers
    vec x[PARTS];
  };
  static Units stored_units(const stored* from) {
    Units to;
    wide(from, to.x);
    return to;
  }
  static Units own_units(const float* from) {
    Units to;
    EACH(i, PARTS) to.x[i] = load(from + i * LANES);
    return to;
  }
  static Units held(Units x) {
    EACH(i, PARTS) x.x[i] = in_register(x.x[i]);
    return x;
  }
  static vec add(vec sum, const Units& a, const Units& b) {
    EACH(i, PARTS) sum += a.x[i] * b.x[i];
    return sum;
  }
};

// s[r][n] = the product of q[r] and key[n], rows of N numbers, in groups of SUMS / R keys from `from` on, whose sums
// are in registers; `next` fetches what comes after.
template <class Rows, int R, int N, class Next>
__attribute__((noinline)) void score(const typename Rows::number (*q)[Steps<N>::WIDE], const stored* const* key,
                                     const Next next, int from, int stop, float (*s)[BATCH]) {
  constexpr int WHOLE = Steps<N>::WHOLE, REST = Steps<N>::REST, KEYS = SUMS / R, SIDE = KEYS < 4 ? KEYS : 4;
  constexpr bool STAYS = R * WHOLE * sizeof(typename Rows::Units) <= SUMS / 2 * sizeof(vec);  // q in registers
  typename Rows::Units own[R][STAYS && WHOLE > 0 ? WHOLE : 1];
  if (STAYS) EACH(r, R) EACH(c, WHOLE) own[r][c] = Rows::held(Rows::own_units(q[r] + c * STEP));
  for (int first = from; first < stop; first += KEYS) {
    vec total[SUMS];  // of head r and key n at r * KEYS + n
    for (int n = 0; n < KEYS; ++n) next(first - from + n);
    EACH(side, KEYS / SIDE) {
      const stored* row[SIDE];
      vec sum[R][SIDE] = {};
      const auto add = [&sum](int n, const typename Rows::Units(&by)[R], const stored* from) {
        typename Rows::Units x = Rows::stored_units(from);
        if (R > 1) x = Rows::held(x);
        EACH(r, R) sum[r][n] = Rows::add(sum[r][n], by[r], x);
      };
      EACH(n, SIDE) row[n] = key[first + side * SIDE + n];
      if constexpr (STAYS) {
        EACH(n, SIDE) EACH(c, WHOLE) {
          typename Rows::Units by[R];
          EACH(r, R) by[r] = own[r][c];
          add(n, by, row[n] + c * STEP);
        }
      } else {
#pragma GCC unroll 1
        for (int c = 0; c < WHOLE; ++c) {
          typename Rows::Units by[R];
          EACH(r, R) by[r] = Rows::held(Rows::own_units(q[r] + c * STEP));
          EACH(n, SIDE) add(n, by, row[n] + c * STEP);
        }
      }
      if constexpr (REST > 0) {
        typename Rows::Units by[R];
        EACH(r, R) by[r] = Rows::own_units(q[r] + WHOLE * STEP);
        EACH(n, SIDE) {
          stored padded[STEP] = {};
          std::memcpy(padded, row[n] + WHOLE * STEP, REST * sizeof *padded);
          add(n, by, padded);
        }
      }
      EACH(r, R) EACH(n, SIDE) total[r * KEYS + side * SIDE + n] = sum[r][n];
    }
    EACH(v, SUMS / LANES) {
      const vec sums = add_lanes(total + v * LANES);
      if (KEYS >= LANES) store(s[v * LANES / KEYS] + first + v * LANES % KEYS, sums);
      else EACH(r, LANES / KEYS)
      std::memcpy(s[v * (LANES / KEYS) + r] + first, (const float*)&sums + r * KEYS, KEYS * sizeof(float));
    }
  }
  if constexpr (Stored::BESIDE > 0)
    for (int first = from; first < stop; first += LANES) {
      float factor[LANES];
      for (int n = 0; n < LANES; ++n) factor[n] = factor_of<Stored, N>(key[first + n]);
      EACH(r, R) store(s[r] + first, load(s[r] + first) * load(factor));
    }
}

// Likewise of `count` keys from the first on, after which come the rows of `then`; SPARE more entries of both are
// addresses too.
template <class Rows, int R, int N, int M>
inline void score(const typename Rows::number (*q)[Steps<N>::WIDE], const stored* const* key, const stored* const* then,
                  int count, float (*s)[BATCH]) {
  score<Rows, R, N>(q, key, RowsThen<N, M>{key, then, count}, 0, count, s);
}

// o[r] += the sum over n, from `from` on, of p[r][n] * value[n], rows of N numbers, in C steps from step c on, or in
// the rest of a row; `next` fetches what comes after.
template <int R, int N, int C, bool IS_REST, class Next>
__attribute__((noinline)) void gather(const float (*p)[BATCH], const stored* const* value, const Next next, int from,
                                      int stop, int c, float (*o)[Steps<N>::WIDE]) {
  vec total[R][C * PARTS];
  EACH(r, R) EACH(n, C * PARTS) total[r][n] = load(o[r] + c * STEP + n * LANES);
  for (int k = from; k < stop; ++k) {
    const stored* row = value[k] + c * STEP;
    if (c == 0) next(k - from);
    EACH(n, C) {
      vec x[PARTS];
      if (IS_REST) wide_rest<Steps<N>::REST>(row, x);
      else wide(row + n * STEP, x);
      EACH(r, R) EACH(i, PARTS) total[r][n * PARTS + i] += p[r][k] * x[i];
    }
  }
  EACH(r, R) EACH(n, C * PARTS) store(o[r] + c * STEP + n * LANES, total[r][n]);
}

template <int R, int N, class Next>
inline void gather(const float (*p)[BATCH], const stored* const* value, const Next& next, int from, int stop,
                   float (*o)[Steps<N>::WIDE]) {
  constexpr int WHOLE = Steps<N>::WHOLE, C = SUMS / R / PARTS, LAST = WHOLE % C;
  int c = 0;
  for (; c + C <= WHOLE; c += C) gather<R, N, C, false>(p, value, next, from, stop, c, o);
  if constexpr (LAST > 0) gather<R, N, LAST, false>(p, value, next, from, stop, c, o);
  if constexpr (Steps<N>::REST > 0) gather<R, N, 1, true>(p, value, next, from, stop, WHOLE, o);
}
