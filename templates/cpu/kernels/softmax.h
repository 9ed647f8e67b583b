#pragma once
#include "micro_kernels.h"
#include "printed/modifiers.h"

// ---- The online soft-max step: one panel of queries over the keys of one tile.
typedef Split<KEY_TILE> KeySplit;

struct Keys {  // the keys of one tile to attend to, in order; ROWS more entries, so that every block is whole
  int count;
  const float *key[KEY_TILE + ROWS], *value[KEY_TILE + ROWS];
  bool finite;  // all values; set where a mask is
  int at[KEY_TILE + ROWS];  // their positions; set where a modifier reads them
};

struct Panel {
  float q[D][PANEL];  // times the score's scale
  float o[DV][PANEL];  // the sum of weights times values, relative to 2^peak
  vec peak[VECS];  // within 8 below the largest score so far; -inf before the first live key
  vec total[VECS];  // the sum of weights, relative to 2^peak
  ivec at[VECS];  // positions of the queries
};

// s[r][lane] = the score of key[r], at position at[r], and q[..][lane], or -inf where the mask is 0; `peak` follows the
// largest.
template <int R, bool MASKED>
__attribute__((noinline)) void score(const float (*q)[PANEL], const float* const* key, const int* at,
                                     const ivec (&lane)[VECS], Modifiers modifiers, const ivec (*mask)[VECS],
                                     float (*s)[PANEL], vec* peak) {
  vec sum[R][VECS] = {};
#pragma GCC unroll 4
  for (int d = 0; d < D; ++d) {
    vec x[VECS];
    EACH(v, VECS) x[v] = load(q[d] + v * LANES);
    EACH(r, R) EACH(v, VECS) sum[r][v] += key[r][d] * x[v];
  }
  EACH(r, R) {
    Modifiers::Kept<VECS> kept;
    modifiers.forward(sum[r], kept, lane, at + r);
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

// The number of keys is even. `s` is scratch for scores, then weights.
template <bool MASKED>
__attribute__((noinline)) void attend(Panel& panel, const Keys& keys, Modifiers modifiers, const ivec (*mask)[VECS],
                                      float (*s)[PANEL]) {
  const vec lowest = splat(LOWEST_EXPONENT);
  const int count = keys.count;
  vec largest[VECS], shift[VECS], total[VECS];
  EACH(v, VECS) largest[v] = panel.peak[v];
  int n = 0;
  for (; n < minimum(count, KeySplit::LARGE_END); n += KeySplit::LARGE)
    score<KeySplit::LARGE, MASKED>(panel.q, keys.key + n, keys.at + n, panel.at, modifiers, mask + n, s + n, largest);
  for (; n < count; n += KeySplit::SIZE)
    score<KeySplit::SIZE, MASKED>(panel.q, keys.key + n, keys.at + n, panel.at, modifiers, mask + n, s + n, largest);

  rescale(panel, largest, lowest);
  EACH(v, VECS) {
    shift[v] = finite(panel.peak[v]);
    total[v] = panel.total[v];
  }
  for (n = 0; n < count; n += 2) {
    vec p[2 * VECS];
    EACH(v, 2 * VECS) p[v] = load(s[n] + v * LANES) - shift[v % VECS];
    exp2(p, lowest);
    EACH(v, 2 * VECS) {
      total[v % VECS] += p[v];
      store(s[n] + v * LANES, p[v]);
    }
  }
  EACH(v, VECS) panel.total[v] = total[v];
  if (!MASKED || keys.finite) accumulate<PANEL>(keys.value, count, s[0], panel.o);
  else accumulate_seen<PANEL>(keys.value, count, s[0], mask, panel.o);
}
