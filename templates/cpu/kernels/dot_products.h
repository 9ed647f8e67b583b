#pragma once
#include <algorithm>
#include <type_traits>
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
constexpr int OWN = LANES == 16 ? SUMS : SUMS / 2;  // vectors of a row of q that stay in registers beside sums
// Keys from the one at hand to the one to fetch.
constexpr int AHEAD = std::max(SUMS, std::min(64, BYTES_AHEAD / int(STORED_ROW<D> * sizeof(stored))));
constexpr int NEAR = std::max(1, std::min(AHEAD / 2, BYTES_NEAR / int(STORED_ROW<D> * sizeof(stored))));
constexpr int SPARE = AHEAD + SUMS;  // addresses after those of keys at hand that may be read
constexpr int HELD_BACK = (AHEAD + PANEL - 1) / PANEL * PANEL;  // keys that wait on when others are taken

template <int N>
constexpr int BLOCK = std::max(1, BYTES_A_BLOCK / int(STORED_ROW<N> * sizeof(stored) * SUMS)) * SUMS;  // keys at hand
constexpr int LONG_ROW = 256;  // bytes of a row, from which on a processor does well to fetch by itself those after it
constexpr int IN_PARTS = 256;  // keys of which one part is read after another
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

// To each lane are added those whose numbers differ by a multiple of W.
template <int W, int... N>
inline vec over_groups(vec x, std::integer_sequence<int, N...> numbers) {
  if constexpr (W == LANES) return x;
  else return over_groups<2 * W>(x + pick<(N ^ W)...>(x, x), numbers);
}

// Lane n of the result is the sum of the lanes of x[n % COUNT].
template <int COUNT = LANES, int W = COUNT / 2>
inline vec add_lanes(const vec* x) {
  vec sums[W];
  EACH(n, W) sums[n] = half_sums<W>(x[n], x[n + W], std::make_integer_sequence<int, LANES>());
  if constexpr (W == 1) return over_groups<COUNT>(sums[0], std::make_integer_sequence<int, LANES>());
  else return add_lanes<COUNT, W / 2>(sums);
}

// Always inlined: GCC leaves calls out of functions that do nothing but fetch.
template <int N>
__attribute__((always_inline)) inline void fetch(const stored* row) {
  for (size_t d = 0; d < STORED_ROW<N> * sizeof *row; d += 64) __builtin_prefetch((const char*)row + d, 0, 2);
}

// Whether some of the rows `from` to `stop` of a list, of N numbers, do not follow the one before.
template <int N>
inline bool apart(const stored* const* row, int from, int stop) {
  int64_t off = 0;
  for (int n = from; n < stop; ++n) off |= row[n] - row[from] - int64_t(n - from) * STORED_ROW<N>;
  return off != 0;
}

// What comes from memory while row n of a list is at hand: rows after it, SPARE of which the list has beyond its end,
// so that memory is never idle. A row has N numbers.
template <int N>
struct RowsAfter {
  const stored* const* row;
  // Twice, for a processor that has much to fetch forgets some.
  __attribute__((always_inline)) void operator()(int n) const {
    fetch<N>(row[n + AHEAD / 2]);
    fetch<N>(row[n + AHEAD]);
  }
  // Row n, at `at`, is read from its first number to its last, and the next ones follow it: a processor fetches them by
  // itself, if what it is told to fetch is near. `far`: as of `far()`.
  __attribute__((always_inline)) void operator()(int n, const stored* at, bool far) const {
    fetch<N>(at + NEAR * STORED_ROW<N>);
    if (far) fetch<N>(row[n + AHEAD]);
  }
  // Whether it seems that the rows to AHEAD after row `stop` do not all follow row `from`.
  bool far(int from, int stop) const {
    return row[stop + AHEAD - 1] - row[from] != int64_t(stop + AHEAD - 1 - from) * STORED_ROW<N>;
  }
};

// The rows of `then`, which may be shorter, are fetched after the first `count` of `rows`, and after as many more as
// `score` may read.
inline void follow(const stored** rows, int count, const stored* const* then) {
  const int more = (SUMS - count % SUMS) % SUMS;
  std::fill_n(rows + count, more, rows[count - 1]);
  std::copy_n(then, SPARE - more, rows + count + more);
}

// As many of `heads` as have `vectors` each in `most` registers: all, if not even one has.
constexpr int heads_in(int heads, int vectors, int most) {
  int n = heads;
  while (n > 1 && n * vectors > most) n /= 2;
  return n * vectors > most ? heads : n;
}

// Rows of N numbers: those of a list, in any order.
template <int N>
struct ListedRows {
  const stored* const* list;
  __attribute__((always_inline)) const stored* operator[](int n) const { return list[n]; }
  template <class Next>
  __attribute__((always_inline)) void fetch_after(const Next& next, int n, bool) const {
    next(n);
  }
};
// From row `first` on those that follow each other. An address that is read from a list is known late; these are
// counted.
template <int N>
struct FollowingRows {
  const stored* begin;
  int first;
  __attribute__((always_inline)) const stored* operator[](int n) const {
    return begin + int64_t(n - first) * STORED_ROW<N>;
  }
  template <class Next>
  __attribute__((always_inline)) void fetch_after(const Next& next, int n, bool far) const {
    next(n, (*this)[n], far);
  }
};

// Calls `of(head, next, rows, first, stop)` for the R heads, H at a time, with some rows of a list from `from` to
// `stop` after others, so few that they stay at hand for the next heads; `next(n)` fetches what comes after row n.
// WHOLE_ROWS: each is read from its first number to its last; else in parts, or beside others.
template <int R, int H, bool WHOLE_ROWS, int N, class Next, class Of>
__attribute__((always_inline)) inline void by_blocks(const stored* const* list, const Next& next, int from, int stop,
                                                     const Of& of) {
  constexpr bool STRAIGHT = WHOLE_ROWS && STORED_ROW<N> * sizeof(stored) >= LONG_ROW;
  constexpr int KEYS = H < R ? BLOCK<N> : std::max(4 * BLOCK<N>, STRAIGHT ? 1 : IN_PARTS);
  for (int first = from; first < stop; first += KEYS) {
    const int last = minimum(first + KEYS, stop);
    const bool far = next.far(first, last);
    const auto take = [&](auto rows) __attribute__((always_inline)) {
      of(
          0, [next, rows, far](int n) __attribute__((always_inline)) { rows.fetch_after(next, n, far); }, rows, first,
          last);
      for (int r = H; r < R; r += H) of(r, [](int) {}, rows, first, last);
    };
    // Up to a multiple of SUMS rows are read, of which the last ones may be no keys, but are listed.
    if (!STRAIGHT || (last - first) % SUMS != 0 || apart<N>(list, first, last)) take(ListedRows<N>{list});
    else take(FollowingRows<N>{list[first], first});
  }
}

// What q and the weights of a row are, and how they meet stored rows: floats, for which these are widened.
struct WidenedRows {
  typedef float number;  // of q
  static constexpr Name NAME = FLOATS;
  static constexpr bool AS_STORED = PARTS == 1;  // nothing widens: rows may be read once for each head
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

// s[r][n] = the product of q[r] and key[n], rows of N numbers, in groups of some keys from `from` on, whose sums are in
// registers. q too, if it STAYS there: then keys are read one after another, in the order in which they lie.
template <class Rows, int R, int N, bool STAYS, class Keys, class Next>
__attribute__((always_inline)) inline void score_some(const typename Rows::number (*q)[Steps<N>::WIDE], const Keys key,
                                                      const Next next, int from, int stop, float (*s)[BATCH]) {
  constexpr int WHOLE = Steps<N>::WHOLE, REST = Steps<N>::REST, TOTALS = STAYS ? SUMS / 2 : SUMS, KEYS = TOTALS / R,
                SIDE = STAYS || KEYS < 4 ? KEYS : 4;
  typename Rows::Units own[R][STAYS && WHOLE > 0 ? WHOLE : 1];
  if (STAYS) EACH(r, R) EACH(c, WHOLE) own[r][c] = Rows::held(Rows::own_units(q[r] + c * STEP));
  for (int first = from; first < stop; first += KEYS) {
    vec total[TOTALS];  // of head r and key n at r * KEYS + n
    if (!STAYS)
      for (int n = 0; n < KEYS; ++n) next(first + n);
    EACH(side, KEYS / SIDE) {
      const int at = first + side * SIDE;
      vec sum[R][SIDE] = {};
      const auto add = [&sum](int n, const typename Rows::Units(&by)[R], const stored* from) {
        typename Rows::Units x = Rows::stored_units(from);
        if (R > 1) x = Rows::held(x);
        EACH(r, R) sum[r][n] = Rows::add(sum[r][n], by[r], x);
      };
      if constexpr (STAYS) {
        EACH(n, SIDE) {
          next(first + n);
          EACH(c, WHOLE) {
            typename Rows::Units by[R];
            EACH(r, R) by[r] = own[r][c];
            add(n, by, key[at + n] + c * STEP);
          }
        }
      } else {
        const stored* row[SIDE];
        EACH(n, SIDE) row[n] = key[at + n];
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
          std::memcpy(padded, key[at + n] + WHOLE * STEP, REST * sizeof *padded);
          add(n, by, padded);
        }
      }
      EACH(r, R) EACH(n, SIDE) total[r * KEYS + side * SIDE + n] = sum[r][n];
    }
    constexpr int COUNT = TOTALS < LANES ? TOTALS : LANES;  // sums of a vector
    EACH(v, TOTALS / COUNT) {
      const vec sums = add_lanes<COUNT>(total + v * COUNT);
      if (KEYS >= LANES) store(s[v * LANES / KEYS] + first + v * LANES % KEYS, sums);
      else EACH(r, COUNT / KEYS)
      std::memcpy(s[v * (COUNT / KEYS) + r] + first, (const float*)&sums + r * KEYS, KEYS * sizeof(float));
    }
  }
}

// s[r][n] = the product of q[r] and key[n], rows of N numbers, for the keys from `from` on, and perhaps for some after
// `stop`; `next` fetches what comes after.
template <class Rows, int R, int N, class Next>
__attribute__((noinline)) void score(const typename Rows::number (*q)[Steps<N>::WIDE], const stored* const* key,
                                     const Next next, int from, int stop, float (*s)[BATCH]) {
  constexpr int VECTORS = Steps<N>::WHOLE * sizeof(typename Rows::Units) / sizeof(vec);
  constexpr int H = Rows::AS_STORED ? heads_in(R, VECTORS, OWN) : R;
  constexpr bool STAYS = H * VECTORS <= OWN;
  by_blocks<R, H, STAYS, N>(key, next, from, stop, [&](int r, auto next, auto rows, int first, int last) {
    score_some<Rows, H, N, STAYS>(q + r, rows, next, first, last, s + r);
  });
  if constexpr (Stored::BESIDE > 0)
    for (int first = from; first < stop; first += LANES) {
      float factor[LANES];
      for (int n = 0; n < LANES; ++n) factor[n] = factor_of<Stored, N>(key[first + n]);
      EACH(r, R) store(s[r] + first, load(s[r] + first) * load(factor));
    }
}

// o[r] += the sum over n, from `from` on, of p[r][n] * value[n], rows of N numbers, in C steps from step c on, or in
// the rest of a row; `next` fetches what comes after.
template <int R, int N, int C, bool IS_REST, class Values, class Next>
__attribute__((always_inline)) inline void gather_some(const float (*p)[BATCH], const Values value, const Next next,
                                                       int from, int stop, int c, float (*o)[Steps<N>::WIDE]) {
  vec total[R][C * PARTS];
  EACH(r, R) EACH(n, C * PARTS) total[r][n] = load(o[r] + c * STEP + n * LANES);
  for (int k = from; k < stop; ++k) {
    const stored* row = value[k] + c * STEP;
    if (c == 0) next(k);
    EACH(n, C) {
      vec x[PARTS];
      if (IS_REST) wide_rest<Steps<N>::REST>(row, x);
      else wide(row + n * STEP, x);
      if (R > 1) EACH(i, PARTS) x[i] = in_register(x[i]);
      EACH(r, R) EACH(i, PARTS) total[r][n * PARTS + i] += p[r][k] * x[i];
    }
  }
  EACH(r, R) EACH(n, C * PARTS) store(o[r] + c * STEP + n * LANES, total[r][n]);
}

// What adds up rows of N numbers, PARTS vectors of sums a step, for R heads: H at a time, C steps at a time.
template <int R, int N, bool AS_STORED>
struct Sweep {
  static constexpr int WHOLE = Steps<N>::WHOLE, H = AS_STORED ? heads_in(R, WHOLE* PARTS, SUMS) : R,
                       C = std::min(WHOLE, std::max(1, SUMS / H / PARTS)), LAST = C == 0 ? 0 : WHOLE % C;
  // Calls `of(head, next, rows, first, stop, c, steps, is_rest)`; `steps` and `is_rest` are constants.
  template <class Next, class Of>
  __attribute__((always_inline)) static void run(const stored* const* value, const Next& next, int from, int stop,
                                                 const Of& of) {
    by_blocks<R, H, C == WHOLE, N>(value, next, from, stop, [&](int r, auto next, auto rows, int first, int last) {
      int c = 0;
      if constexpr (C > 0)
        for (; c + C <= WHOLE; c += C)
          of(r, next, rows, first, last, c, std::integral_constant<int, C>(), std::false_type());
      if constexpr (LAST > 0) of(r, next, rows, first, last, c, std::integral_constant<int, LAST>(), std::false_type());
      if constexpr (Steps<N>::REST > 0)
        of(r, next, rows, first, last, WHOLE, std::integral_constant<int, 1>(), std::true_type());
    });
  }
};

template <int R, int N, class Next>
__attribute__((noinline)) void gather(const float (*p)[BATCH], const stored* const* value, const Next next, int from,
                                      int stop, float (*o)[Steps<N>::WIDE]) {
  typedef Sweep<R, N, PARTS == 1> Sums;
  Sums::run(value, next, from, stop,
            [&](int r, auto next, auto rows, int first, int last, int c, auto steps, auto is_rest) {
              gather_some<Sums::H, N, steps.value, is_rest.value>(p + r, rows, next, first, last, c, o + r);
            });
}
