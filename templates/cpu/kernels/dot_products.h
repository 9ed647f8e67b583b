#pragma once
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
constexpr int HELD_BACK = (AHEAD + PANEL - 1) / PANEL * PANEL;  // keys that wait on when others are taken
constexpr int BATCH = 2 * (KEY_TILE < 64 ? 64 : KEY_TILE) + HELD_BACK;  // keys that wait at most
static_assert(AHEAD >= LANES, "AHEAD: keys from the one at hand to the one to fetch");

// Where element d of a row lies once widened: neighbours go to the same lane of different vectors, without a shuffle.
inline int place(int d) { return d / STEP * STEP + d % PARTS * LANES + d % STEP / PARTS; }

template <int REST>
inline void wide_rest(const stored* from, vec (&to)[PARTS]) {
  stored padded[STEP] = {};
  std::memcpy(padded, from, REST * sizeof *padded);
  wide(padded, to);
}

// Sums of neighbours, N of them: a compiler makes vectors of this, and not of the sum of a vector's lanes.
template <int N>
inline void add_pairs(const float* __restrict x, float* __restrict to) {
  for (int n = 0; n < N; ++n) to[n] = x[2 * n] + x[2 * n + 1];
}

// to[n] = the sum of the lanes of x[n], for LANES vectors.
inline void add_lanes(float (&x)[LANES * LANES], float* to) {
  float y[LANES * LANES / 2];
  add_pairs<LANES * LANES / 2>(x, y);
  if (LANES == 4) return add_pairs<LANES>(y, to);
  add_pairs<LANES * LANES / 4>(y, x);
  if (LANES == 8) return add_pairs<LANES>(x, to);
  add_pairs<LANES * LANES / 8>(x, y);
  add_pairs<LANES>(y, to);
}

// Always inlined: GCC leaves calls out of functions that do nothing but fetch.
template <int N>
__attribute__((always_inline)) inline void fetch(const stored* row) {
  for (size_t d = 0; d < STORED_ROW<N> * sizeof *row; d += 64) __builtin_prefetch((const char*)row + d, 0, 2);
}

// What comes from memory while row n is at hand: row n of a list.
template <int N>
struct ListedRows {
  const stored* const* row;
  __attribute__((always_inline)) void operator()(int n) const { fetch<N>(row[n]); }
};

// The key AHEAD after it, a row of N numbers; at the end also the first AHEAD values, rows of M, so that memory is
// never idle.
template <int N, int M>
struct KeysThenValues {
  const stored *const *key, *const *value;
  int count;
  __attribute__((always_inline)) void operator()(int n) const {
    fetch<N>(key[n + AHEAD]);
    if (n >= count - AHEAD) fetch<M>(value[n - (count - AHEAD)]);
  }
};

// s[r][n] = the product of q[r] and key[n], rows of N numbers, in groups of LANES keys from `from` on; `next` fetches
// what comes after.
template <int R, int N, class Next>
__attribute__((noinline)) void score(const float (*q)[Steps<N>::WIDE], const stored* const* key, const Next next,
                                     int from, int stop, float (*s)[BATCH]) {
  constexpr int WHOLE = Steps<N>::WHOLE, REST = Steps<N>::REST;
  for (int first = from; first < stop; first += LANES) {
    float products[R][LANES * LANES];
    for (int n = 0; n < LANES; ++n) {
      const stored* row = key[first + n];
      next(first - from + n);
      vec total[R] = {}, x[PARTS];
      EACH(c, WHOLE) {
        wide(row + c * STEP, x);
        EACH(r, R) EACH(i, PARTS) total[r] += x[i] * load(q[r] + c * STEP + i * LANES);
      }
      if (REST > 0) {
        wide_rest<REST>(row + WHOLE * STEP, x);
        EACH(r, R) EACH(i, PARTS) total[r] += x[i] * load(q[r] + WHOLE * STEP + i * LANES);
      }
      EACH(r, R) store(products[r] + n * LANES, total[r]);
    }
    EACH(r, R) add_lanes(products[r], s[r] + first);
    if constexpr (Stored::BESIDE > 0) {
      float factor[LANES];
      for (int n = 0; n < LANES; ++n) factor[n] = factor_of<Stored, N>(key[first + n]);
      EACH(r, R) store(s[r] + first, load(s[r] + first) * load(factor));
    }
  }
}

// Likewise of `count` keys from the first on; AHEAD more entries of `key` are addresses too.
template <int R, int N, int M>
inline void score(const float (*q)[Steps<N>::WIDE], const stored* const* key, const stored* const* value, int count,
                  float (*s)[BATCH]) {
  score<R, N>(q, key, KeysThenValues<N, M>{key, value, count}, 0, count, s);
}

// o[r] += the sum over n, from `from` on, of p[r][n] * value[n], rows of N numbers, in C steps from step c on, or in
// the rest of a row; rows of `next` are fetched meanwhile.
template <int R, int N, int C, bool IS_REST>
__attribute__((noinline)) void gather(const float (*p)[BATCH], const stored* const* value, const stored* const* next,
                                      int from, int stop, int c, float (*o)[Steps<N>::WIDE]) {
  vec total[R][C * PARTS];
  EACH(r, R) EACH(n, C * PARTS) total[r][n] = load(o[r] + c * STEP + n * LANES);
  for (int k = from; k < stop; ++k) {
    const stored* row = value[k] + c * STEP;
    if (c == 0) fetch<N>(next[k - from]);
    EACH(n, C) {
      vec x[PARTS];
      if (IS_REST) wide_rest<Steps<N>::REST>(row, x);
      else wide(row + n * STEP, x);
      EACH(r, R) EACH(i, PARTS) total[r][n * PARTS + i] += p[r][k] * x[i];
    }
  }
  EACH(r, R) EACH(n, C * PARTS) store(o[r] + c * STEP + n * LANES, total[r][n]);
}

template <int R, int N>
inline void gather(const float (*p)[BATCH], const stored* const* value, const stored* const* next, int from, int stop,
                   float (*o)[Steps<N>::WIDE]) {
  constexpr int WHOLE = Steps<N>::WHOLE, C = SUMS / R / PARTS, LAST = WHOLE % C;
  int c = 0;
  for (; c + C <= WHOLE; c += C) gather<R, N, C, false>(p, value, next, from, stop, c, o);
  if constexpr (LAST > 0) gather<R, N, LAST, false>(p, value, next, from, stop, c, o);
  if constexpr (Steps<N>::REST > 0) gather<R, N, 1, true>(p, value, next, from, stop, WHOLE, o);
}
