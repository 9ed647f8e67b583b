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
  const operand *q[QUERY_TILE + ROWS], *grad[QUERY_TILE + ROWS];  // `grad`: the gradient of the output
  const operand *const *q_across, *const *grad_across;  // the same in units across the queries
  float* dq[QUERY_TILE + ROWS];
  float lse[QUERY_TILE + ROWS], delta[QUERY_TILE + ROWS];
  int at[QUERY_TILE + ROWS];  // positions
};

struct Keys {  // units of keys of one tile: the number in it of their first, and their rows in whole vectors
  int count, lane[KEY_TILE / DEPTH];
  bool finite;  // all of the tile
  const operand* row[KEY_TILE / DEPTH];
};

struct Panel {
  operand k[units_of(D)][PANEL * DEPTH], v[units_of(DV)][PANEL * DEPTH];  // k as `Operands::scale` leaves it
  float dk[D][PANEL], dv[DV][PANEL];
  float factor;  // the score's scale
  ivec at[VECS];  // positions
  ivec present[VECS];  // whether there is a key
  vec dbias[VECS];  // of what the keys add to the scores of one query head
};

// to[r][d] += the product of the units t[r][lane] and row[d], summed over the keys, for V vectors of head dims from d
// on.
template <int R, int V>
__attribute__((noinline)) void gather_block(const Keys& keys, const operand* t, int d, float* const* to) {
  vec sum[R][V];
  EACH(r, R) EACH(v, V) sum[r][v] = load(to[r] + d + v * LANES);
  const int count = keys.count;
  for (int n = 0; n < count; ++n) {
    const operand *row = keys.row[n] + d * DEPTH, *unit = t + keys.lane[n];
    Operands::units x[V];
    EACH(v, V) x[v] = Operands::read(row + v * LANES * DEPTH);
    EACH(r, R) EACH(v, V) sum[r][v] = Operands::add(sum[r][v], Operands::spread(unit + r * KEY_TILE), x[v]);
  }
  EACH(r, R) EACH(v, V) store(to[r] + d + v * LANES, sum[r][v]);
}

template <int R>
inline void gather_rows(const Keys& keys, const operand* t, float* const* to) {
  int d = 0;
  for (; d + PANEL <= WIDE; d += PANEL) gather_block<R, VECS>(keys, t, d, to);
  for (; d < WIDE; d += LANES) gather_block<R, 1>(keys, t, d, to);
}

// dq of the queries, from the gradients t of their scores with the keys.
inline void gather(const Keys& keys, const operand* t, const Queries& queries) {
  int n = 0;
  for (; n < minimum(queries.count, QuerySplit::LARGE_END); n += QuerySplit::LARGE)
    gather_rows<QuerySplit::LARGE>(keys, t + n * KEY_TILE, queries.dq + n);
  for (; n < queries.count; n += QuerySplit::SIZE)
    gather_rows<QuerySplit::SIZE>(keys, t + n * KEY_TILE, queries.dq + n);
}

// The same where some keys of a panel are not finite: one has no part in the dq of a query whose mask is 0 there.
__attribute__((noinline, cold)) void gather_seen(const Keys& keys, const operand* t, const ivec (*mask)[VECS],
                                                 const Queries& queries) {
  for (int r = 0; r < queries.count; ++r)
    for (int n = 0; n < keys.count; ++n) {
      const int lane = keys.lane[n] % PANEL;
      int32_t of_lane[DEPTH];
      EACH(i, DEPTH) of_lane[i] = mask[r][(lane + i) / LANES][(lane + i) % LANES];
      const int32_t seen = Operands::seen(of_lane);
      if (!seen) continue;
      const Operands::units unit = Operands::spread(t + r * KEY_TILE + keys.lane[n]);
      for (int d = 0; d < WIDE; d += LANES) {
        const Operands::units x = Operands::masked(Operands::read(keys.row[n] + d * DEPTH), seen);
        store(queries.dq[r] + d, Operands::add(load(queries.dq[r] + d), unit, x));
      }
    }
}

// Turns the products q.k in s into weights, and the products grad.v in t into the gradients of q.k, both 0 where the
// mask is 0, and both in units across the queries; `ds` are those gradients in units across the keys, 0 where there is
// no key. The number of queries is even.
template <bool MASKED>
__attribute__((noinline)) void weigh(Panel& panel, const Queries& queries, Modifiers modifiers,
                                     const ivec (*mask)[VECS], float* s, float* t, operand* ds) {
  const vec lowest = splat(LOWEST_EXPONENT);
  vec more[VECS], dbias[VECS] = {};
  EACH(v, VECS) more[v] = of_keys(modifiers, panel.at[v]);
  operand *const weights = (operand*)s, *const gradients = (operand*)t;
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
      } else if (DEPTH > 1) {
        gradient[c] = (vec)((ivec)gradient[c] & panel.present[v]);
      }
    }
    Operands::store_two<VECS>(p, weights + n * KEY_TILE, KEY_TILE);
    Operands::store_both<VECS>(gradient, gradients + n * KEY_TILE, ds + n * KEY_TILE, KEY_TILE);
  }
  if constexpr (Modifiers::KEYS) EACH(v, VECS) panel.dbias[v] += dbias[v];
}

// All of it but dq. `s` and `t` are scratch; `ds` as above.
template <bool MASKED>
inline void differentiate(Panel& panel, const Queries& queries, Modifiers modifiers, const ivec (*mask)[VECS], float* s,
                          float* t, operand* ds) {
  product(panel.k, queries.q, queries.count, panel.factor, s);
  product(panel.v, queries.grad, queries.count, 1.0f, t);
  weigh<MASKED>(panel, queries, modifiers, mask, s, t, ds);
  const int count = queries.count / DEPTH;
  const operand *const weights = (operand*)s, *const gradients = (operand*)t;
  if (!MASKED || queries.finite) {
    accumulate<KEY_TILE>(queries.grad_across, count, weights, panel.dv);
    accumulate<KEY_TILE>(queries.q_across, count, gradients, panel.dk);
  } else {
    accumulate_seen<KEY_TILE>(queries.grad_across, count, weights, mask, panel.dv);
    accumulate_seen<KEY_TILE>(queries.q_across, count, gradients, mask, panel.dk);
  }
}
