#pragma once
#include "printed/matrix_tiles.h"

// ---- The online soft-max step: one panel of queries over the keys of one tile.
typedef Split<KEY_TILE> KeySplit;
constexpr int FETCHED = 2 + 2 * DEPTH;  // rows, beside a block of scores; beside two weights it is one

// s[r][lane] = the score of key r, at position at[r], and the panel's query in that lane, of which sum[r] has the
// products, or -inf where the mask is 0; `peak` follows the largest.
template <int R, bool MASKED>
inline void settle(vec (&sum)[R][VECS], const Panel& panel, const int* at, Modifiers modifiers,
                   const ivec (*mask)[VECS], float (*s)[PANEL], vec* peak) {
  EACH(r, R) {
    EACH(v, VECS) sum[r][v] = Operands::scaled(sum[r][v], panel.factor);
    Modifiers::Kept<VECS> kept;
    modifiers.forward(sum[r], kept, panel.at, at + r);
    if constexpr (Modifiers::KEYS) {
      const float more = modifiers.of_key(at[r]);
      EACH(v, VECS) sum[r][v] += more;
    }
  }
  EACH(r, R) EACH(v, VECS) {
    if (MASKED) sum[r][v] = mask[r][v] ? sum[r][v] : splat(-INF);
    peak[v] = maximum(sum[r][v], peak[v]);
    store(s[r] + v * LANES, sum[r][v]);
  }
}

// The same of keys key[0 .. R - 1], products and all.
template <int R, bool MASKED>
__attribute__((noinline)) void score(const Panel& panel, const operand* const* key, const int* at, Modifiers modifiers,
                                     const ivec (*mask)[VECS], float (*s)[PANEL], vec* peak) {
  vec sum[R][VECS] = {};
#pragma GCC unroll 4
  for (int d = 0; d < units_of(D); ++d) {
    Operands::units x[VECS];
    EACH(v, VECS) x[v] = Operands::read(panel.q[d] + v * LANES * DEPTH);
    EACH(r, R) EACH(v, VECS) sum[r][v] = Operands::add(sum[r][v], Operands::spread(key[r] + d * DEPTH), x[v]);
  }
  settle<R, MASKED>(sum, panel, at, modifiers, mask, s, peak);
}

// 0 for -inf, so that a score of -inf minus it is -inf and never NaN.
inline vec finite(vec peak) { return peak == splat(-INF) ? vec{} : peak; }

// Moves a row's peak once a weight would pass 2^8; until then nothing needs rescaling. Rows do not affect each other.
inline void rescale(Panel& panel, const vec* largest, vec lowest) {
  ivec moved = {};
  vec peak[VECS], factor[VECS];
  EACH(v, VECS) {
    const ivec up = largest[v] > panel.peak[v] + 8.0f;
    peak[v] = up ? largest[v] : panel.peak[v];
    factor[v] = panel.peak[v] - finite(peak[v]);
    moved |= up;
  }
  if (!any(moved)) return;
  exp2(factor, lowest);
  EACH(v, VECS) {
    panel.peak[v] = peak[v];
    panel.total[v] *= factor[v];
  }
  for (int d = 0; d < DV; ++d) EACH(v, VECS) store(panel.o[d] + v * LANES, load(panel.o[d] + v * LANES) * factor[v]);
}

// The number of keys is even; `products` has them open. `s` is scratch for scores, then weights. `ahead` is fetched
// meanwhile.
template <bool MASKED>
__attribute__((noinline)) void attend(Panel& panel, const Keys& keys, Products& products, Modifiers modifiers,
                                      const ivec (*mask)[VECS], float (*s)[PANEL], Ahead& ahead) {
  const vec lowest = splat(LOWEST_EXPONENT);
  const int count = keys.count;
  vec largest[VECS], shift[VECS], total[VECS];
  EACH(v, VECS) largest[v] = panel.peak[v];
  int n = 0;
  if (products.whole()) {
    products.products(panel, count, s);
    for (; n < count; n += 2) {
      vec sum[2][VECS];
      EACH(r, 2) EACH(v, VECS) sum[r][v] = load(s[n + r] + v * LANES);
      settle<2, MASKED>(sum, panel, keys.at + n, modifiers, mask + n, s + n, largest);
    }
  }
  for (; n < minimum(count, KeySplit::LARGE_END); n += KeySplit::LARGE) {
    score<KeySplit::LARGE, MASKED>(panel, keys.key + n, keys.at + n, modifiers, mask + n, s + n, largest);
    EACH(r, FETCHED) ahead.fetch();
  }
  for (; n < count; n += KeySplit::SIZE) {
    score<KeySplit::SIZE, MASKED>(panel, keys.key + n, keys.at + n, modifiers, mask + n, s + n, largest);
    EACH(r, FETCHED) ahead.fetch();
  }

  rescale(panel, largest, lowest);
  EACH(v, VECS) {
    shift[v] = finite(panel.peak[v]);
    total[v] = panel.total[v];
  }
  operand* const weights = (operand*)s[0];
  for (n = 0; n < count; n += 2) {
    ahead.fetch();
    vec p[2 * VECS];
    EACH(v, 2 * VECS) p[v] = load(s[n] + v * LANES) - shift[v % VECS];
    exp2(p, lowest);
    EACH(v, 2 * VECS) total[v % VECS] += p[v];
    Operands::store_two<VECS>(p, weights + n * PANEL, PANEL);
  }
  EACH(v, VECS) panel.total[v] = total[v];
  products.add(panel, keys, weights, mask, MASKED && !keys.finite);
}
