#pragma once
#include <type_traits>

#include "printed/config.h"
#include "printed/dtype.h"
#include "printed/operands.h"

typedef Operands::operand operand;
constexpr int DEPTH = Operands::DEPTH;
constexpr int units_of(int n) { return (n + DEPTH - 1) / DEPTH; }
constexpr int row_of(int n) { return units_of(n) * DEPTH; }  // operands of n elements, in whole units
constexpr int WIDEST = D > DV ? D : DV;  // of a row of keys and one of values

struct Matrix {  // [rows, D or DV], strides in elements
  const element* data;
  int64_t row, dim;
};

// [batch, heads, rows, ...] at one batch entry and head; row 0 of the result is row `first`, which may be negative.
Matrix matrix(const void* data, const int64_t* stride, int64_t b, int64_t h, int64_t first) {
  return {(const element*)data + b * stride[0] + h * stride[1] + first * stride[2], stride[2], stride[3]};
}

template <class To>
inline To converted(element x) {
  if constexpr (std::is_same_v<To, element>) return x;
  else return widen(x);
}

// Rows first .. first + count of `m`, of N numbers, as float32 or as operands, [count][width].
template <int N, class To>
void load_rows(const Matrix& m, int64_t first, int count, To* to, int width = N) {
  for (int n = 0; n < count; ++n, to += width) {
    const element* from = m.data + (first + n) * m.row;
    if (m.dim == 1)
      for (int d = 0; d < N; ++d) to[d] = converted<To>(from[d]);
    else
      for (int d = 0; d < N; ++d) to[d] = converted<To>(from[d * m.dim]);
  }
}

// Points at rows first .. first + count of `m`, of N numbers, in place if they are contiguous operands and whole units,
// else as such in `packed`.
template <int N>
inline void point(const Matrix& m, int64_t first, int count, operand (*packed)[row_of(N)], const operand** to) {
  constexpr bool IN_PLACE = std::is_same_v<operand, element> && N % DEPTH == 0;
  const operand* from = (const operand*)m.data + first * m.row;
  int64_t row = m.row;
  if (!IN_PLACE || m.dim != 1) {
    load_rows<N>(m, first, count, packed[0], row_of(N));
    if constexpr (N % DEPTH != 0)
      for (int n = 0; n < count; ++n) packed[n][N] = 0;
    from = packed[0], row = row_of(N);
  }
  for (int n = 0; n < count; ++n, from += row) to[n] = from;
}
