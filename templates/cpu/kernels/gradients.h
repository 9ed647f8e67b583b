#pragma once
#include "printed/modifiers.h"
#include "products.h"

// ---- The gradients that one panel of keys and the queries of one tile give each other.
constexpr int whole_vectors(int n) { return (n + LANES - 1) / LANES * LANES; }
constexpr int WIDE = whole_vectors(D);  // a row of dq

struct Queries {  // the queries of one tile, in order; ROWS more entries, so that every block is whole
  int count;
  bool finite;  // all queries and gradients; set where a mask is
  bool silent;  // some is: see `is_silent`
  const float *q[QUERY_TILE + ROWS], *grad[QUERY_TILE + ROWS];  // `grad`: the gradient of the output
  float* dq[QUERY_TILE + ROWS];
  float lse[QUERY_TILE + ROWS], delta[QUERY_TILE + ROWS];
  int at[QUERY_TILE + ROWS];  // positions
};

struct Keys {  // keys of one tile: their numbers in it, and their rows in whole vectors
  int count, lane[KEY_TILE];
  bool finite;  // all of the tile
  const float* row[KEY_TILE];
};

struct Panel {
  float k[D][PANEL];  // times the score's scale
  float v[DV][PANEL], dk[D][PANEL], dv[DV][PANEL];
  ivec at[VECS];  // positions
  vec dbias[VECS];  // of what the keys add to the scores of one query head
};

// to[r][d] += sum over the keys of t[r][lane] * row[d], for V vectors of head dims from d on.
template <int R, int V>
__attribute__((noinline)) void gather_block(const Keys& keys, const float* t, int d, float* const* to) {
  vec sum[R][V];
  EACH(r, R) EACH(v, V) sum[r][v] = load(to[r] + d + v * LANES);
  const int count = keys.count;
  for (int n = 0; n < count; ++n) {
    const float *row = keys.row[n] + d, *scalars = t + keys.lane[n];
    vec x[V];
    EACH(v, V) x[v] = load(row + v * LANES);
    EACH(r, R) EACH(v, V) sum[r][v] += scalars[r * KEY_TILE] * x[v];
  }
  EACH(r, R) EACH(v, V) store(to[r] + d + v * LANES, sum[r][v]);
}

template <int R>
inline void gather_rows(const Keys& keys, const float* t, float* const* to) {
  int d = 0;
  for (; d + PANEL <= WIDE; d += PANEL) gather_block<R, VECS>(keys, t, d, to);
  for (; d < WIDE; d += LANES) gather_block<R, 1>(keys, t, d, to);
}

// dq of the queries, from the gradients t of their scores with the keys.
inline void gather(const Keys& keys, const float* t, const Queries& queries) {
  int n = 0;
  for (; n < minimum(queries.count, QuerySplit::LARGE_END); n += QuerySplit::LARGE)
    gather_rows<QuerySplit::LARGE>(keys, t + n * KEY_TILE, queries.dq + n);
  for (; n < queries.count; n += QuerySplit::SIZE)
    gather_rows<QuerySplit::SIZE>(keys, t + n * KEY_TILE, queries.dq + n);
}

// The same where some keys of a panel are not finite: one has no part in the dq of a query whose mask is 0 there.
__attribute__((noinline, cold)) void gather_seen(const Keys& keys, const float* t, const ivec (*mask)[VECS],
                                                 const Queries& queries) {
  for (int r = 0; r < queries.count; ++r)
    for (int n = 0; n < keys.count; ++n) {
      const int lane = keys.lane[n] % PANEL;
      if (!mask[r][lane / LANES][lane % LANES]) continue;
      const float scalar = t[r * KEY_TILE + keys.lane[n]];
      for (int d = 0; d < WIDE; d += LANES) {
        vec sum = load(queries.dq[r] + d);
        sum += scalar * load(keys.row[n] + d);
        store(queries.dq[r] + d, sum);
      }
    }
}

// Turns the products q.k in s into weights, and the products grad.v in t into the gradients of q.k, both 0 where the
// mask is 0. The number of queries is even.
template <bool MASKED>
__attribute__((noinline)) void weigh(Panel& panel, const Queries& queries, Modifiers modifiers,
                                     const ivec (*mask)[VECS], float* s, float* t) {
  const vec lowest = splat(LOWEST_EXPONENT);
  vec more[VECS], dbias[VECS] = {};
  EACH(v, VECS) more[v] = of_keys(modifiers, panel.at[v]);
  for (int n = 0; n < queries.count; n += 2, s += 2 * KEY_TILE, t += 2 * KEY_TILE) {
    vec p[2 * VECS];
    EACH(m, 2) EACH(v, VECS) p[m * VECS + v] = load(s + m * KEY_TILE + v * LANES);
    Modifiers::Kept<2 * VECS> kept;
    modifiers.forward(p, kept, panel.at, queries.at + n);
    EACH(m, 2) EACH(v, VECS) p[m * VECS + v] = added(p[m * VECS + v], more[v]) - queries.lse[n + m];
    exp2(p, lowest);
    vec gradient[2 * VECS];
    EACH(m, 2) EACH(v, VECS) {
      const int c = m * VECS + v;
      gradient[c] = p[c] * (load(t + m * KEY_TILE + v * LANES) - queries.delta[n + m]);
    }
    if constexpr (Modifiers::KEYS) EACH(m, 2) EACH(v, VECS) {
        const vec of_score = gradient[m * VECS + v];
        dbias[v] += MASKED ? (mask[n + m][v] ? of_score : vec{}) : of_score;
      }
    modifiers.backward(gradient, kept);
    EACH(m, 2) EACH(v, VECS) {
      const int c = m * VECS + v;
      if (MASKED) {
        p[c] = mask[n + m][v] ? p[c] : vec{};
        gradient[c] = mask[n + m][v] ? gradient[c] : vec{};
      }
      store(s + m * KEY_TILE + v * LANES, p[c]);
      store(t + m * KEY_TILE + v * LANES, gradient[c]);
    }
  }
  if constexpr (Modifiers::KEYS) EACH(v, VECS) panel.dbias[v] += dbias[v];
}

// All of it but dq. `s` and `t` are scratch; t keeps the gradients of q.k.
template <bool MASKED>
inline void differentiate(Panel& panel, const Queries& queries, Modifiers modifiers, const ivec (*mask)[VECS], float* s,
                          float* t) {
  product(panel.k, queries.q, queries.count, s);
  product(panel.v, queries.grad, queries.count, t);
  weigh<MASKED>(panel, queries, modifiers, mask, s, t);
  if (!MASKED || queries.finite) {
    accumulate<KEY_TILE>(queries.grad, queries.count, s, panel.dv);
    accumulate<KEY_TILE>(queries.q, queries.count, t, panel.dk);
  } else {
    accumulate_seen<KEY_TILE>(queries.grad, queries.count, s, mask, panel.dv);
    accumulate_seen<KEY_TILE>(queries.q, queries.count, t, mask, panel.dk);
  }
}
