#pragma once
#include <algorithm>

#include "printed/modifiers.h"
#include "waiting.h"

// ---- A row: one query of each head of a pack, the keys that it sees, and the weights that it gives them.
struct Row : Waiting {  // one thread's scratch
  float q[SHARE][KeySteps::WIDE];  // times the score's scale
  float lse[SHARE];  // in base 2; +inf for an empty row, so that its weights are 0
  float s[SHARE][BATCH];
  Modifiers modifiers[SHARE];  // of the heads' scores
  float* sums[SHARE];  // of the key at position 0, that of the next `apart` numbers on
  int64_t apart;
};

// Row `row` of q, before it has seen a key; the key at position 0 is row `k_row`.
template <class Call>
void load_query(Row& w, const Call& call, int64_t b, int64_t row, int64_t k_row, const int64_t* lse_stride) {
  for (int r = 0; r < w.pack; ++r) {
    const int64_t h = w.heads[r];
    const Matrix q = matrix(call.q, call.q_stride, b, h, row);
    const float lse = call.lse[b * lse_stride[0] + h * lse_stride[1] + row * lse_stride[2]] * LOG2E;
    w.lse[r] = lse == -INF ? INF : lse;
    std::fill(w.q[r], w.q[r] + KeySteps::WIDE, 0.0f);
    for (int d = 0; d < D; ++d)
      w.q[r][wide_place(d)] = Element::widen(q.data[d * q.dim]) * (call.scale * Modifiers::UNIT);
    w.modifiers[r] = Modifiers(call, b, h, k_row);
  }
  w.waiting = 0;
}

// Adds the weights of the keys that wait. A key out of the row's range, as a spoilt list may have it, gets none.
void attend(Row& w) {
  if (w.waiting == 0) return;
  point_waiting(w);
  by_heads(w.pack, [&w](auto heads, int r) {
    score<WidenedRows, heads.value, D>(w.q + r, w.key, RowsAfter<D>{w.key}, 0, w.waiting, w.s + r);
  });
  const vec lowest = splat(LOWEST_EXPONENT);
  for (int r = 0; r < w.pack; ++r) {
    for (int n = 0; n < w.waiting; n += PANEL) {
      vec p[VECS];
      ivec at[VECS];
      EACH(v, VECS) p[v] = load(w.s[r] + n + v * LANES);
      EACH(v, VECS) std::memcpy(&at[v], w.at + n + v * LANES, sizeof at[v]);
      Modifiers::Kept<VECS> kept;
      w.modifiers[r].forward(p, kept, at, &w.i0);
      EACH(v, VECS) p[v] = added(p[v], of_keys(w.modifiers[r], at[v])) - w.lse[r];
      exp2(p, lowest);
      EACH(v, VECS) store(w.s[r] + n + v * LANES, p[v]);
    }
    for (int n = 0; n < w.waiting; ++n)
      if (w.at[n] >= w.begin && w.at[n] < w.end) w.sums[r][w.at[n] * w.apart] += w.s[r][n];
  }
  w.waiting = 0;
}
