#pragma once
#include <cstring>
#include <type_traits>

#include "printed/config.h"
#include "printed/dtype.h"
#include "printed/operands.h"

typedef Element::type element;
typedef Stored::type stored;
typedef Operands::operand operand;
inline element narrow(float x) { return Element::narrow(x); }
constexpr int DEPTH = Operands::DEPTH;
constexpr int units_of(int n) { return (n + DEPTH - 1) / DEPTH; }
constexpr int row_of(int n) { return units_of(n) * DEPTH; }  // operands of n elements, in whole units
constexpr int WIDEST = D > DV ? D : DV;  // of a row of keys and one of values

template <class Format>
struct MatrixOf {  // [rows, D or DV], strides in elements
  const typename Format::type* data;
  int64_t row, dim;
};
typedef MatrixOf<Element> Matrix;
typedef MatrixOf<Stored> StoredMatrix;

// [batch, heads, rows, ...] at one batch entry and head; row 0 of the result is row `first`, which may be negative.
template <class Format = Element>
MatrixOf<Format> matrix(const void* data, const int64_t* stride, int64_t b, int64_t h, int64_t first) {
  typedef const typename Format::type* Numbers;
  return {(Numbers)data + b * stride[0] + h * stride[1] + first * stride[2], stride[2], stride[3]};
}

// Elements of a row of N numbers with what is beside them.
template <int N>
constexpr int STORED_ROW = N + Stored::BESIDE / int(sizeof(stored));

// What the N numbers of a row are times.
template <class Format, int N>
inline float factor_of(const typename Format::type* row) {
  float factor = 1.0f;
  if constexpr (Format::BESIDE > 0) std::memcpy(&factor, row + N, sizeof factor);
  return factor;
}

template <class To, class Format>
inline To converted(typename Format::type x, float factor) {
  if constexpr (std::is_same_v<To, typename Format::type>) return x;
  else if constexpr (Format::BESIDE > 0) return Format::widen(x) * factor;
  else return Format::widen(x);
}

// Rows first .. first + count of `m`, of N numbers, as float32 or as operands, [count][width].
template <int N, class To, class Format>
void load_rows(const MatrixOf<Format>& m, int64_t first, int count, To* to, int width = N) {
  for (int n = 0; n < count; ++n, to += width) {
    const typename Format::type* from = m.data + (first + n) * m.row;
    const float factor = factor_of<Format, N>(from);
    if (m.dim == 1)
      for (int d = 0; d < N; ++d) to[d] = converted<To, Format>(from[d], factor);
    else
      for (int d = 0; d < N; ++d) to[d] = converted<To, Format>(from[d * m.dim], factor);
  }
}

// Stores a row of N numbers as elements, `dim` apart.
template <int N>
inline void store_row(const float* from, element* to, int64_t dim) {
  if (dim == 1)
    for (int d = 0; d < N; ++d) to[d] = narrow(from[d]);
  else
    for (int d = 0; d < N; ++d) to[d * dim] = narrow(from[d]);
}

// Points at rows first .. first + count of `m`, of N numbers, in place if they are contiguous operands and whole units,
// else as such in `packed`.
template <int N, class Format>
inline void point(const MatrixOf<Format>& m, int64_t first, int count, operand (*packed)[row_of(N)],
                  const operand** to) {
  constexpr bool IN_PLACE = std::is_same_v<operand, typename Format::type> && N % DEPTH == 0;
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
