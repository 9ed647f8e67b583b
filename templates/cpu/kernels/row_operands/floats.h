#pragma once
#include "../dot_products.h"

// ---- What a row of q and its weights are when they meet keys and values: floats.
struct FloatRows : WidenedRows {
  static number of(element x, float factor) { return Element::widen(x) * factor; }
  static vec scaled(vec score, float) { return score; }
  static int place(int d) { return wide_place(d); }

  // Keeps the weights of keys n .. n + PANEL - 1 of a row beside those before them.
  static void keep(const vec (&p)[VECS], float* weights, int n) { EACH(v, VECS) store(weights + n + v * LANES, p[v]); }

  // o[r] += the sum over n, from `from` on, of weight n of r times value[n]; as `gather`.
  template <int R, int N, class Next>
  static void add_values(const float (*weights)[BATCH], const stored* const* value, const Next& next, int from,
                         int stop, float (*o)[Steps<N>::WIDE]) {
    gather<R, N>(weights, value, next, from, stop, o);
  }
};
