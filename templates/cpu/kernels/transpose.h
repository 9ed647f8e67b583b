#pragma once
#include <utility>

#include "vectors.h"

// ---- Between rows and panels: LANES x LANES numbers are transposed in registers, head dims that are left one by one.
// The numbers of a and b in turn.
template <int... N>
inline void zip(vec a, vec b, vec& low, vec& high, std::integer_sequence<int, N...>) {
  low = pick<(N / 2 + N % 2 * LANES)...>(a, b);
  high = pick<(LANES / 2 + N / 2 + N % 2 * LANES)...>(a, b);
}

// to[c][r] = from[r][c], in rows that are `width` and `apart` numbers apart. Each round takes rows r and r + LANES / 2.
__attribute__((noinline)) void transpose_block(const float* from, int width, float* to, int apart) {
  vec x[LANES];
  EACH(r, LANES) x[r] = load(from + r * width);
  EACH(round, LANES == 16 ? 4 : LANES == 8 ? 3 : 2) {
    vec y[LANES];
    EACH(r, LANES / 2) zip(x[r], x[r + LANES / 2], y[2 * r], y[2 * r + 1], std::make_integer_sequence<int, LANES>());
    EACH(r, LANES) x[r] = y[r];
  }
  EACH(r, LANES) store(to + r * apart, x[r]);
}

// Lane n of to[d] = unit d of row n, of PANEL rows `width` operands apart.
template <class T, int N, int M>
inline void to_panel(const T* row, int width, T (&to)[N][M]) {
  constexpr int UNIT = M / PANEL, WORD = sizeof(float) / sizeof(T);
  static_assert(UNIT == WORD, "a unit is as long as a float");
  int d = 0;
  for (; d + LANES <= N; d += LANES) EACH(v, VECS) {
      const T* from = row + v * LANES * width + d * UNIT;
      transpose_block((const float*)from, width / WORD, (float*)(to[d] + v * LANES * UNIT), PANEL);
    }
  for (; d < N; ++d)
    for (int n = 0; n < PANEL; ++n) std::memcpy(to[d] + n * UNIT, row + n * width + d * UNIT, sizeof(float));
}

// row[n][d] = from[d][n].
template <int N>
inline void from_panel(const float (&from)[N][PANEL], float* row, int width) {
  int d = 0;
  for (; d + LANES <= N; d += LANES)
    EACH(v, VECS) transpose_block(from[d] + v * LANES, PANEL, row + v * LANES * width + d, width);
  for (; d < N; ++d)
    for (int n = 0; n < PANEL; ++n) row[n * width + d] = from[d][n];
}
