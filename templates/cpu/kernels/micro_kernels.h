#pragma once
#include "elements.h"
#include "vectors.h"

// ---- Micro-kernels: a block of sums in registers, R rows of one panel each; scalars are broadcast in place.

// TOTAL rows in blocks of nearly equal size, at most ROWS: first those of LARGE rows, up to LARGE_END, then of SIZE.
template <int TOTAL>
struct Split {
  static constexpr int BLOCKS = (TOTAL + ROWS - 1) / ROWS, SIZE = TOTAL / BLOCKS, MORE = TOTAL % BLOCKS;
  static constexpr int LARGE = SIZE + (MORE > 0), LARGE_END = MORE * LARGE;
};

// o[r][lane] += the product of unit d + r of row[n] and of p[n][lane], summed over n; p's rows are WIDTH units apart,
// and there is at least one n.
template <int R, int WIDTH>
__attribute__((noinline)) void accumulate_block(const operand* const* row, int count, int d, const operand* p,
                                                float (*o)[PANEL]) {
  vec sum[R][VECS];
  EACH(r, R) EACH(v, VECS) sum[r][v] = load(o[r] + v * LANES);
  int n = 0;
  do {
    const operand* unit = row[n] + d * DEPTH;
    Operands::units x[VECS];
    EACH(v, VECS) x[v] = Operands::read(p + (n * WIDTH + v * LANES) * DEPTH);
    EACH(r, R) EACH(v, VECS) sum[r][v] = Operands::add(sum[r][v], Operands::spread(unit + r * DEPTH), x[v]);
  } while (++n < count);
  EACH(r, R) EACH(v, VECS) store(o[r] + v * LANES, sum[r][v]);
}

// The same for every unit of a row.
template <int WIDTH, int N>
inline void accumulate(const operand* const* row, int count, const operand* p, float (&o)[N][PANEL]) {
  typedef Split<N> DimSplit;
  int d = 0;
  for (; d < DimSplit::LARGE_END; d += DimSplit::LARGE)
    accumulate_block<DimSplit::LARGE, WIDTH>(row, count, d, p, o + d);
  for (; d < N; d += DimSplit::SIZE) accumulate_block<DimSplit::SIZE, WIDTH>(row, count, d, p, o + d);
}

// Whether no element of the rows, of N numbers, is infinite or NaN.
template <int N>
__attribute__((noinline)) bool all_finite(const operand* const* row, int count) {
  constexpr int32_t EXPONENT = 0x7f800000, MAGNITUDE = 0x7fffffff;
  ivec largest[VECS] = {};
  int32_t rest = 0;
  for (int n = 0; n < count; ++n) {
    int d = 0;
    for (; d + PANEL * DEPTH <= N; d += PANEL * DEPTH) EACH(v, VECS) EACH(i, DEPTH) {
        const ivec bits = Operands::bits(Operands::read(row[n] + d + v * LANES * DEPTH), i);
        largest[v] = maximum(largest[v], bits & MAGNITUDE);
      }
    for (; d < N; ++d) rest = maximum(rest, Operands::bits(row[n] + d) & MAGNITUDE);
  }
  ivec found = {};
  EACH(v, VECS) found |= largest[v] >= EXPONENT;
  return !any(found) && rest < EXPONENT;
}

// `accumulate` where some rows are not finite: an operand has no part in the lanes where its mask is 0, whatever it
// holds; the others have the same bits.
template <int WIDTH, int N>
__attribute__((noinline, cold)) void accumulate_seen(const operand* const* row, int count, const operand* p,
                                                     const ivec (*mask)[VECS], float (&o)[N][PANEL]) {
  for (int d = 0; d < N; ++d) {
    vec sum[VECS];
    EACH(v, VECS) sum[v] = load(o[d] + v * LANES);
    for (int n = 0; n < count; ++n) EACH(v, VECS) {
        const ivec seen = (ivec)Operands::spread(row[n] + d * DEPTH) & Operands::seen(mask + n * DEPTH, v);
        const Operands::units x = Operands::read(p + (n * WIDTH + v * LANES) * DEPTH);
        sum[v] = Operands::add(sum[v], (Operands::units)seen, x);
      }
    EACH(v, VECS) store(o[d] + v * LANES, sum[v]);
  }
}
