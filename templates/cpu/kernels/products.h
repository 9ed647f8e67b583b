#pragma once
#include "micro_kernels.h"

// ---- Products of the rows of one tile with one panel.
typedef Split<QUERY_TILE> QuerySplit;

// s[r][lane] = the product of row[r] and x[..][lane], of N units, scaled; s has KEY_TILE columns.
template <int R, int N>
__attribute__((noinline)) void product_block(const operand (&x)[N][PANEL * DEPTH], const operand* const* row,
                                             float factor, float* s) {
  vec sum[R][VECS] = {};
#pragma GCC unroll 4
  for (int d = 0; d < N; ++d) {
    Operands::units y[VECS];
    EACH(v, VECS) y[v] = Operands::read(x[d] + v * LANES * DEPTH);
    EACH(r, R) EACH(v, VECS) sum[r][v] = Operands::add(sum[r][v], Operands::spread(row[r] + d * DEPTH), y[v]);
  }
  EACH(r, R) EACH(v, VECS) store(s + r * KEY_TILE + v * LANES, Operands::scaled(sum[r][v], factor));
}

template <int N>
inline void product(const operand (&x)[N][PANEL * DEPTH], const operand* const* row, int count, float factor,
                    float* s) {
  int n = 0;
  for (; n < minimum(count, QuerySplit::LARGE_END); n += QuerySplit::LARGE)
    product_block<QuerySplit::LARGE>(x, row + n, factor, s + n * KEY_TILE);
  for (; n < count; n += QuerySplit::SIZE) product_block<QuerySplit::SIZE>(x, row + n, factor, s + n * KEY_TILE);
}
