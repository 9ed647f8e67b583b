#pragma once
#include "micro_kernels.h"

// ---- Products of the rows of one tile with one panel.
typedef Split<QUERY_TILE> QuerySplit;

// s[r][lane] = sum over d of row[r][d] * x[d][lane]; s has KEY_TILE columns.
template <int R, int N>
__attribute__((noinline)) void product_block(const float (&x)[N][PANEL], const float* const* row, float* s) {
  vec sum[R][VECS] = {};
#pragma GCC unroll 4
  for (int d = 0; d < N; ++d) {
    vec y[VECS];
    EACH(v, VECS) y[v] = load(x[d] + v * LANES);
    EACH(r, R) EACH(v, VECS) sum[r][v] += row[r][d] * y[v];
  }
  EACH(r, R) EACH(v, VECS) store(s + r * KEY_TILE + v * LANES, sum[r][v]);
}

template <int N>
inline void product(const float (&x)[N][PANEL], const float* const* row, int count, float* s) {
  int n = 0;
  for (; n < minimum(count, QuerySplit::LARGE_END); n += QuerySplit::LARGE)
    product_block<QuerySplit::LARGE>(x, row + n, s + n * KEY_TILE);
  for (; n < count; n += QuerySplit::SIZE) product_block<QuerySplit::SIZE>(x, row + n, s + n * KEY_TILE);
}
