#pragma once
#include "../vectors.h"
#include "part.h"

// Each document is one; positions count from its start.
template <class Call>
int64_t count_parts(const Call& call) {
  return call.documents;
}

template <class Call>
Part part_of(const Call& call, int64_t n) {
  const int q0 = int(call.q0), begin = call.cu_seqlens[n], length = call.cu_seqlens[n + 1] - begin;
  return {
      maximum(q0 - begin, 0), minimum(q0 + int(call.n_q) - begin, length), 0, length, length, begin - call.q0, begin};
}
