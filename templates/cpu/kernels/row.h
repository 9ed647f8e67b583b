#pragma once
#include <algorithm>
#include <cmath>

#include "printed/modifiers.h"
#include "waiting.h"

// ---- A row: one query of each head of a pack, the keys that it sees, and its online soft-max.
struct Row : Waiting {  // one thread's scratch
  float q[SHARE][KeySteps::WIDE];  // times the score's scale
  float o[SHARE][ValueSteps::WIDE];  // the sum of weights times values, relative to 2^peak
  float peak[SHARE], total[SHARE];
  float s[SHARE][BATCH];
  Modifiers modifiers[SHARE];  // of the heads' scores
  int32_t* met;  // over pages, of tiles 0 .. tiles - 1 how many rows see them in full, of `sharing` rows
  int tiles, sharing;
};

// Row `row` of q, before it has seen a key; the key at position 0 is row `k_row`.
template <class Call>
void load_query(Row& w, const Call& call, int64_t b, int64_t row, int64_t k_row) {
  const float factor = call.scale * Modifiers::UNIT;
  for (int r = 0; r < w.pack; ++r) {
    const Matrix q = matrix(call.q, call.q_stride, b, w.heads[r], row);
    std::fill(w.q[r], w.q[r] + KeySteps::WIDE, 0.0f);
    for (int d = 0; d < D; ++d) w.q[r][place(d)] = Element::widen(q.data[d * q.dim]) * factor;
    std::fill(w.o[r], w.o[r] + ValueSteps::WIDE, 0.0f);
    w.peak[r] = -INF, w.total[r] = 0.0f;
    w.modifiers[r] = Modifiers(call, b, w.heads[r], k_row);
  }
  w.waiting = 0;
}

// Turns the scores of the first `count` waiting keys into weights, for head r of the pack.
inline void weigh(Row& w, int count, int r) {
  const vec lowest = splat(LOWEST_EXPONENT);
  float* s = w.s[r];
  vec largest = splat(w.peak[r]), total = {};
  for (int n = 0; n < count; n += PANEL) {
    vec x[VECS];
    EACH(v, VECS) x[v] = load(s + n + v * LANES);
    ivec at[VECS];
    EACH(v, VECS) std::memcpy(&at[v], w.at + n + v * LANES, sizeof at[v]);
    Modifiers::Kept<VECS> kept;
    w.modifiers[r].forward(x, kept, at, &w.i0);
    if constexpr (Modifiers::KEYS) EACH(v, VECS) x[v] = added(x[v], of_keys(w.modifiers[r], at[v]));
    EACH(v, VECS) {
      ivec there = w.lane[v] + n < count;
      x[v] = there ? x[v] : splat(-INF);
      largest = maximum(x[v], largest);
      store(s + n + v * LANES, x[v]);
    }
  }
  float peak = w.peak[r];
  for (int n = 0; n < LANES; ++n) peak = largest[n] > peak ? largest[n] : peak;
  const vec shift = splat(peak == -INF ? 0.0f : peak);
  for (int n = 0; n < count; n += PANEL) {
    vec p[VECS];
    EACH(v, VECS) p[v] = load(s + n + v * LANES) - shift;
    exp2(p, lowest);
    EACH(v, VECS) total += p[v];
    EACH(v, VECS) store(s + n + v * LANES, p[v]);
  }
  const float factor = w.peak[r] == peak ? 1.0f : std::exp2(w.peak[r] - peak);
  w.peak[r] = peak;
  w.total[r] *= factor;
  for (int n = 0; n < LANES; ++n) w.total[r] += total[n];
  if (factor != 1.0f)
    for (int d = 0; d < ValueSteps::WIDE; ++d) w.o[r][d] *= factor;
}

// Attends to the first `count` of the keys that wait.
inline void attend(Row& w, int count) {
  if (count <= 0) return;
  point_waiting(w);
  by_heads(w.pack,
           [&w, count](auto heads, int r) { score<heads.value, D, DV>(w.q + r, w.key, w.value, count, w.s + r); });
  for (int r = 0; r < w.pack; ++r) weigh(w, count, r);
  if constexpr (Stored::BESIDE > 0)
    for (int n = 0; n < count; ++n) {
      const float factor = factor_of<Stored, DV>(w.value[n]);
      for (int r = 0; r < w.pack; ++r) w.s[r][n] *= factor;
    }
  by_heads(w.pack, [&w, count](auto heads, int r) { gather<heads.value, DV>(w.s + r, w.value, count, w.o + r); });
  w.waiting -= count;
  std::copy_n(w.at + count, w.waiting, w.at);
  std::copy_n(w.slot + count, w.waiting, w.slot);
}

// Attends to the keys that wait.
inline void attend(Row& w) { attend(w, w.waiting); }

// The last ones wait on: they are fetched while the others are at hand, and the next ones while they are.
inline void make_room(Row& w) { attend(w, w.waiting - HELD_BACK); }
