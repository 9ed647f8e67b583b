#pragma once
#include <cstdint>

// ---- Parts: stretches of the sequence that attend only within themselves.
struct Part {
  int q0, q1;  // positions of its queries
  int begin, end;  // positions of its keys
  int n_k;  // the number of keys that the pattern reckons with
  int64_t q_row, k_row;  // the rows of q and k at position 0
};
