#pragma once
#include "part.h"

// The whole sequence is one.
template <class Call>
int64_t count_parts(const Call&) {
  return 1;
}

template <class Call>
Part part_of(const Call& call, int64_t) {
  const int q0 = int(call.q0), n_k = int(call.n_k);
  return {q0, q0 + int(call.n_q), 0, n_k, n_k, -call.q0, 0};
}
