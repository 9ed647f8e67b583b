#pragma once
#include <algorithm>

#include "cache.h"
#include "dtypes/bits.h"
#include "printed/tuned_store.h"

// ---- Encoding: the call's keys and values as the cache stores them, for all calls to come and for its own.
// Numbers from[0 .. N - 1] as a stored row.
template <class Format, int N>
inline void encode_row(const float* from, typename Format::type* to) {
  if constexpr (Format::BESIDE > 0) {
    int32_t largest = 0;
    for (int d = 0; d < N; ++d) largest = maximum(largest, int32_t(bits_of(from[d]) & 0x7fffffff));
    const float scale = Format::scale_for(uint32_t(largest)), inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    for (int d = 0; d < N; ++d) to[d] = inverse > 0.0f ? Format::rounded(from[d] * inverse) : 0;
    std::memcpy(to + N, &scale, sizeof scale);
  } else {
    for (int d = 0; d < N; ++d) to[d] = Format::narrow(from[d]);
  }
}

// Row `task` of [batch, KV_HEADS, n] to the same row of `to`.
template <int N>
inline void encode(const sparsec_cached_call& call, const void* data, const int64_t* stride, int64_t task, void* to) {
  float row[N];
  load_rows<N>(matrix(data, stride, task / call.n / KV_HEADS, task / call.n % KV_HEADS, task % call.n), 0, 1, row);
  encode_row<Stored, N>(row, (stored*)to + task * STORED_ROW<N>);
}

// Here call.keys and call.values are [batch, KV_HEADS, n, ...].
int encode(const sparsec_cached_call& call) {
  const int64_t rows = call.batch * KV_HEADS * call.n;
  const int64_t worth = 1 + rows * WIDEST / ELEMENTS_A_THREAD;
#pragma omp parallel for num_threads(int(std::min<int64_t>(call.threads, worth)))
  for (int64_t task = 0; task < rows; ++task) {
    encode<D>(call, call.k, call.k_stride, task, call.keys);
    encode<DV>(call, call.v, call.v_stride, task, call.values);
  }
  return 0;
}
