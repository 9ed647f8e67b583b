#pragma once
#include "../vectors.h"
#include "part.h"

// Each document is one.
template <class Call>
int64_t count_parts(const Call& call) {
  return call.documents;
}

template <class Call>
Part part_of(const Call& call, int64_t n) {
  const int q0 = int(call.q0), begin = call.cu_seqlens[n], end = call.cu_seqlens[n + 1];
  return {maximum(q0, begin), minimum(q0 + int(call.n_q), end), begin, end, int(call.n_k), -call.q0, 0};
}
