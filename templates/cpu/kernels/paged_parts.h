#pragma once
#include "documents/part.h"
#include "paged.h"

// Each request is one, that has more queries than are few.
inline int64_t count_parts(const sparsec_paged_call& call) { return call.requests; }

inline Part part_of(const sparsec_paged_call& call, int64_t r) {
  const int q0 = tokens_before(call, r), stop = call.lengths[r];
  return {q0, count_of(call, r) > call.few ? stop : q0, 0, stop, stop, call.starts[r] - q0, 0};
}
