#pragma once
#include "../dot_products.h"
#include "../operands/bfloat16.h"
#include "floats.h"

// ---- What a row of q and its weights are when they meet keys and values of bfloat16: elements and weights of
// bfloat16, where the processor multiplies pairs of them. Pairs of q are neighbours in a row, those of weights
// neighbouring keys.
const stored NO_VALUE[STORED_ROW<DV>] = {};  // beside the last one of an odd number

template <class Pairs>
struct PairRows {
  typedef uint16_t number;
  static constexpr Name NAME = Pairs::NAME;
  static constexpr bool AS_STORED = true;
  typedef typename Pairs::units Units;
  static Units stored_units(const uint16_t* from) { return Pairs::read(from); }
  static Units own_units(const uint16_t* from) { return Pairs::read(from); }
  static Units held(Units x) { return in_register(x); }
  static vec add(vec sum, Units a, Units b) { return Pairs::add(sum, a, b); }

  static number of(element x, float) { return x; }  // with the scale it would be rounded
  static vec scaled(vec score, float factor) { return score * factor; }
  static int place(int d) { return d; }

  static void keep(const vec (&p)[VECS], float* weights, int n) {
    EACH(v, (VECS + 1) / 2) {
      const Units both = Pairs::narrowed(p[2 * v], p[minimum(2 * v + 1, VECS - 1)]);
      std::memcpy((uint16_t*)weights + n + v * 2 * LANES, &both, VECS > 1 ? sizeof both : sizeof both / 2);
    }
  }

  template <int R, int N, class Next>
  __attribute__((noinline)) static void add_values(const float (*weights)[BATCH], const stored* const* value,
                                                   const Next next, int from, int stop, float (*o)[Steps<N>::WIDE]) {
    typedef Sweep<R, N, true> Sums;
    Sums::run(value, next, from, stop,
              [&](int r, auto next, auto rows, int first, int last, int c, auto steps, auto is_rest) {
                add_pairs<Sums::H, N, steps.value, is_rest.value>(weights + r, rows, next, first, last, c, o + r);
              });
  }

 private:
  // Of C steps from step c on, or of the rest of a row.
  template <int R, int N, int C, bool IS_REST, class Values, class Next>
  __attribute__((always_inline)) static void add_pairs(const float (*weights)[BATCH], const Values value,
                                                       const Next next, int from, int stop, int c,
                                                       float (*o)[Steps<N>::WIDE]) {
    vec total[R][2 * C];
    EACH(r, R) EACH(n, 2 * C) total[r][n] = load(o[r] + c * STEP + n * LANES);
    for (int k = from; k < stop; k += 2) {
      const stored *a = value[k] + c * STEP, *b = (k + 1 < stop ? value[k + 1] : NO_VALUE) + c * STEP;
      if (c == 0) next(k), next(k + 1);
      EACH(n, C) {
        Units x, y;
        if (IS_REST) {
          uint16_t padded[2][STEP] = {};
          std::memcpy(padded[0], a, Steps<N>::REST * sizeof *a);
          std::memcpy(padded[1], b, Steps<N>::REST * sizeof *b);
          x = Pairs::read(padded[0]), y = Pairs::read(padded[1]);
        } else {
          x = Pairs::read(a + n * STEP), y = Pairs::read(b + n * STEP);
        }
        const Units low = Pairs::template in_turn<0, STEP>(x, y, typename Pairs::Numbers()),
                    high = Pairs::template in_turn<LANES, STEP>(x, y, typename Pairs::Numbers());
        EACH(r, R) {
          const Units both = Pairs::spread((const uint16_t*)weights[r] + k);
          total[r][2 * n] = Pairs::add(total[r][2 * n], both, low);
          total[r][2 * n + 1] = Pairs::add(total[r][2 * n + 1], both, high);
        }
      }
    }
    EACH(r, R) EACH(n, 2 * C) store(o[r] + c * STEP + n * LANES, total[r][n]);
  }
};

typedef std::conditional_t<Bfloat16Operands::OF_ROWS, PairRows<Bfloat16Operands>, FloatRows> RowOperands;
