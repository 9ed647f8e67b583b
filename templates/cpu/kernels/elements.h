#pragma once
#include "printed/config.h"
#include "printed/dtype.h"

constexpr int WIDEST = D > DV ? D : DV;  // of a row of keys and one of values

struct Matrix {  // [rows, D or DV], strides in elements
  const element* data;
  int64_t row, dim;
};

// [batch, heads, rows, ...] at one batch entry and head; row 0 of the result is row `first`, which may be negative.
Matrix matrix(const void* data, const int64_t* stride, int64_t b, int64_t h, int64_t first) {
  return {(const element*)data + b * stride[0] + h * stride[1] + first * stride[2], stride[2], stride[3]};
}

// Rows first .. first + count of `m`, of N numbers, as float32, [count][width].
template <int N>
void load_rows(const Matrix& m, int64_t first, int count, float* to, int width = N) {
  for (int n = 0; n < count; ++n, to += width) {
    const element* from = m.data + (first + n) * m.row;
    if (m.dim == 1)
      for (int d = 0; d < N; ++d) to[d] = widen(from[d]);
    else
      for (int d = 0; d < N; ++d) to[d] = widen(from[d * m.dim]);
  }
}

// Points at rows first .. first + count of `m`, in place if they are contiguous floats, else widened into `packed`.
template <int N>
inline void point(const Matrix& m, int64_t first, int count, float (*packed)[N], const float** to) {
  const float* from = (const float*)m.data + first * m.row;
  int64_t row = m.row;
  if (PACK || m.dim != 1) {
    load_rows<N>(m, first, count, packed[0]);
    from = packed[0], row = N;
  }
  for (int n = 0; n < count; ++n, from += row) to[n] = from;
}
