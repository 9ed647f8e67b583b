#pragma once
#include <algorithm>
#include <cmath>

#include "printed/modifiers.h"
#include "printed/row_operands.h"
#include "waiting.h"

// ---- A row: one query of each head of a pack, the keys that it sees, and its online soft-max.
struct Row : Waiting {  // one thread's scratch
  RowOperands::number q[SHARE][KeySteps::WIDE];
  float factor;  // of their products, where it is not in q
  float o[SHARE][ValueSteps::WIDE];  // the sum of weights times values, relative to 2^peak
  float peak[SHARE], total[SHARE];
  float s[SHARE][BATCH];
  Modifiers modifiers[SHARE];  // of the heads' scores
  int32_t* met;  // over pages, of tiles 0 .. tiles - 1 how many rows see them in full, of `sharing` rows
  int tiles, sharing;
  int beside;  // over pages, how many rows of other packs after this one see the same keys
};

// Row `row` of q, before it has seen a key; the key at position 0 is row `k_row`.
template <class Call>
void load_query(Row& w, const Call& call, int64_t b, int64_t row, int64_t k_row) {
  w.factor = call.scale * Modifiers::UNIT;
  for (int r = 0; r < w.pack; ++r) {
    const Matrix q = matrix(call.q, call.q_stride, b, w.heads[r], row);
    std::fill(w.q[r], w.q[r] + KeySteps::WIDE, RowOperands::number());
    for (int d = 0; d < D; ++d) w.q[r][RowOperands::place(d)] = RowOperands::of(q.data[d * q.dim], w.factor);
    std::fill(w.o[r], w.o[r] + ValueSteps::WIDE, 0.0f);
    w.peak[r] = -INF, w.total[r] = 0.0f;
    w.modifiers[r] = Modifiers(call, b, w.heads[r], k_row);
  }
  w.waiting = w.beside = 0;
}

// Turns the scores of the first `count` waiting keys, at positions `at`, into weights, for head r of the pack.
inline void weigh(Row& w, const int* at, int count, int r) {
  const vec lowest = splat(LOWEST_EXPONENT);
  float* s = w.s[r];
  vec largest = splat(w.peak[r]), total = {};
  for (int n = 0; n < count; n += PANEL) {
    vec x[VECS];
    EACH(v, VECS) x[v] = RowOperands::scaled(load(s + n + v * LANES), w.factor);
    ivec j[VECS];
    EACH(v, VECS) std::memcpy(&j[v], at + n + v * LANES, sizeof j[v]);
    Modifiers::Kept<VECS> kept;
    w.modifiers[r].forward(x, kept, j, &w.i0);
    if constexpr (Modifiers::KEYS) EACH(v, VECS) x[v] = added(x[v], of_keys(w.modifiers[r], j[v]));
    EACH(v, VECS) {
      ivec there = w.lane[v] + n < count;
      x[v] = there ? x[v] : splat(-INF);
      largest = maximum(x[v], largest);
      store(s + n + v * LANES, x[v]);
    }
  }
  const float peak = over_lanes(largest, [](vec a, vec b) { return maximum(a, b); });
  const vec shift = splat(peak == -INF ? 0.0f : peak);
  for (int n = 0; n < count; n += PANEL) {
    vec p[VECS];
    EACH(v, VECS) p[v] = load(s + n + v * LANES) - shift;
    exp2(p, lowest);
    EACH(v, VECS) total += p[v];
    RowOperands::keep(p, s, n);
  }
  const float factor = w.peak[r] == peak ? 1.0f : std::exp2(w.peak[r] - peak);
  w.peak[r] = peak;
  w.total[r] = w.total[r] * factor + over_lanes(total, [](vec a, vec b) { return a + b; });
  if (factor != 1.0f)
    for (int d = 0; d < ValueSteps::WIDE; ++d) w.o[r][d] *= factor;
}

// Attends to the first `count` keys, at positions `at`, to which w.key and w.value point, and SPARE more to what is
// fetched after them.
inline void attend_alone(Row& w, const int* at, int count) {
  const stored* then[SPARE];  // the keys that wait on, if some do
  std::copy_n(w.key + count, SPARE, then);
  follow(w.key, count, w.value);
  by_heads(w.pack, [&w, count](auto heads, int r) {
    score<RowOperands, heads.value, D>(w.q + r, w.key, RowsAfter<D>{w.key}, 0, count, w.s + r);
  });
  for (int r = 0; r < w.pack; ++r) weigh(w, at, count, r);
  if constexpr (Stored::BESIDE > 0)
    for (int n = 0; n < count; ++n) {
      const float factor = factor_of<Stored, DV>(w.value[n]);
      for (int r = 0; r < w.pack; ++r) w.s[r][n] *= factor;
    }
  follow(w.value, count, then);
  by_heads(w.pack, [&w, count](auto heads, int r) {
    RowOperands::add_values<heads.value, DV>(w.s + r, w.value, RowsAfter<DV>{w.value}, 0, count, w.o + r);
  });
}

// The keys after the first `count` wait on.
inline void wait_on(Row& w, int count) {
  w.waiting -= count;
  std::copy_n(w.at + count, w.waiting, w.at);
  std::copy_n(w.slot + count, w.waiting, w.slot);
}
