#pragma once
#include <algorithm>

#include "../printed/modifiers.h"
#include "../waiting.h"

// ---- A row: one query of each head of a pack, and the gradients that it and the keys that it sees give each other.
constexpr int BOTH_WIDE = KeySteps::WIDE + ValueSteps::WIDE;  // of a key and its value
constexpr int OWN_WIDE = BOTH_WIDE + (Modifiers::KEYS ? SHARE : 0);  // and of what it adds to the scores of each head

struct Row : Waiting {  // one thread's scratch
  float q[SHARE][KeySteps::WIDE], scaled[SHARE][KeySteps::WIDE], dq[SHARE][KeySteps::WIDE],
      grad[SHARE][ValueSteps::WIDE];
  float lse[SHARE], delta[SHARE];
  float s[SHARE][BATCH], t[SHARE][BATCH];
  Modifiers modifiers[SHARE];  // of the heads' scores
  float* sums;  // of the key at position 0, OWN_WIDE numbers
};

template <int N>
inline void load_wide(const Matrix& from, float (&to)[Steps<N>::WIDE]) {
  std::fill(to, to + Steps<N>::WIDE, 0.0f);
  for (int d = 0; d < N; ++d) to[wide_place(d)] = Element::widen(from.data[d * from.dim]);
}

// Row `row`; one that is silent (its `lse` and `delta` are infinite) is loaded as zeros.
template <class Call>
void load_query(Row& w, const Call& call, int64_t b, int64_t row, int64_t k_row, const float* lse, const float* delta) {
  const float factor = call.scale * Modifiers::UNIT;
  for (int r = 0; r < w.pack; ++r) {
    const int64_t h = w.heads[r], at = (b * HEADS + h) * call.n_q + row;
    w.lse[r] = lse[at], w.delta[r] = delta[at];
    load_wide<D>(matrix(call.q, call.q_stride, b, h, row), w.q[r]);
    load_wide<DV>(matrix(call.grad_out, call.grad_out_stride, b, h, row), w.grad[r]);
    if (w.lse[r] == INF && w.delta[r] == INF) std::fill(w.q[r], w.q[r] + KeySteps::WIDE, 0.0f);
    for (int d = 0; d < KeySteps::WIDE; ++d) w.scaled[r][d] = w.q[r][d] * factor;
    std::fill(w.dq[r], w.dq[r] + KeySteps::WIDE, 0.0f);
    w.modifiers[r] = Modifiers(call, b, h, k_row);
  }
  w.waiting = 0;
}

// Turns the products q.k in s into weights, and the products grad.v in t into the gradients of q.k.
inline void weigh(Row& w, int r) {
  const vec lowest = splat(LOWEST_EXPONENT);
  if (w.lse[r] == INF) {  // an empty row, or a silent one
    std::fill(w.s[r], w.s[r] + w.waiting, 0.0f);
    std::fill(w.t[r], w.t[r] + w.waiting, 0.0f);
    return;
  }
  for (int n = 0; n < w.waiting; n += PANEL) {
    vec p[VECS], gradient[VECS];
    ivec at[VECS];
    EACH(v, VECS) p[v] = load(w.s[r] + n + v * LANES);
    EACH(v, VECS) std::memcpy(&at[v], w.at + n + v * LANES, sizeof at[v]);
    Modifiers::Kept<VECS> kept;
    w.modifiers[r].forward(p, kept, at, &w.i0);
    EACH(v, VECS) p[v] = added(p[v], of_keys(w.modifiers[r], at[v])) - w.lse[r];
    exp2(p, lowest);
    EACH(v, VECS) gradient[v] = p[v] * (load(w.t[r] + n + v * LANES) - w.delta[r]);
    if constexpr (Modifiers::KEYS)
      for (int m = n; m < std::min(n + PANEL, w.waiting); ++m)
        w.sums[int64_t(w.at[m]) * OWN_WIDE + BOTH_WIDE + w.heads[r] % SHARE] +=
            gradient[(m - n) / LANES][(m - n) % LANES];
    w.modifiers[r].backward(gradient, kept);
    EACH(v, VECS) store(w.s[r] + n + v * LANES, p[v]);
    EACH(v, VECS) store(w.t[r] + n + v * LANES, gradient[v]);
  }
}

// dk and dv of the keys that wait.
inline void add_to_keys(const Row& w) {
  for (int n = 0; n < w.waiting; ++n) {
    float *dk = w.sums + int64_t(w.at[n]) * OWN_WIDE, *dv = dk + KeySteps::WIDE;
    for (int d = 0; d < KeySteps::WIDE; d += LANES) {
      vec sum = load(dk + d);
      for (int r = 0; r < w.pack; ++r) sum += w.t[r][n] * load(w.q[r] + d);
      store(dk + d, sum);
    }
    for (int d = 0; d < ValueSteps::WIDE; d += LANES) {
      vec sum = load(dv + d);
      for (int r = 0; r < w.pack; ++r) sum += w.s[r][n] * load(w.grad[r] + d);
      store(dv + d, sum);
    }
  }
}

// Takes the gradients of the keys that wait.
void attend(Row& w) {
  if (w.waiting == 0) return;
  point_waiting(w);
  follow(w.key, w.waiting, w.value), follow(w.value, w.waiting, w.key);
  by_heads(w.pack, [&w](auto heads, int r) {
    score<WidenedRows, heads.value, D>(w.scaled + r, w.key, RowsAfter<D>{w.key}, 0, w.waiting, w.s + r);
    score<WidenedRows, heads.value, DV>(w.grad + r, w.value, RowsAfter<DV>{w.value}, 0, w.waiting, w.t + r);
  });
  for (int r = 0; r < w.pack; ++r) weigh(w, r);
  by_heads(w.pack, [&w](auto heads, int r) {
    gather<heads.value, D>(w.t + r, w.key, RowsAfter<D>{w.key}, 0, w.waiting, w.dq + r);
  });
  add_to_keys(w);
  w.waiting = 0;
}
