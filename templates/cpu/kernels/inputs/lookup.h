#pragma once
#include "../printed/calls.h"
#include "../vectors.h"

// ---- Inputs: what a call's tensors say of the pairs (i, j) of one query head, and of the tiles of pairs.
// A tensor may hold any numbers: none becomes an address before it was compared with what there is.
struct Inputs {
  static constexpr bool ASKED = true;
  const sparsec_lookup* lookups;  // two a test
  int64_t b, q_row, k_row;  // the sequence; the rows of queries and keys at position 0
  int first_query, n_k;  // the position of the call's first query; the keys that the pattern reckons with
  int64_t entry = 0;  // of a list of kept keys, the first of those at hand

  template <class Call>
  Inputs(const Call& call, int64_t b, int64_t q_row, int64_t k_row, int n_k, int first_query)
      : lookups(call.inputs), b(b), q_row(q_row), k_row(k_row), first_query(first_query), n_k(n_k) {}

  template <class Call>
  Inputs(const Call& call, int64_t b, int64_t q_row, int64_t k_row, int n_k)
      : Inputs(call, b, q_row, k_row, n_k, int(k_row - q_row)) {}
};

// Whether some lookup tells query heads of a KV group apart.
template <class Call>
bool tells_heads_apart(const Call& call) {
  bool found = false;
  for (int n = 0; n < LOOKUPS; ++n) found |= call.inputs[n].heads > KV_HEADS;
  return found;
}

struct Pairs {  // queries i0 .. i1 with keys j0 .. j1, all inclusive
  int i0, i1, j0, j1;
};

// What lookup `n` has for a query head.
template <class Number>
const Number* of_head(const Inputs& inputs, int n, int head) {
  const sparsec_lookup& from = inputs.lookups[n];
  const int64_t at = (from.batch > 1 ? inputs.b * from.heads : 0) + head * from.heads / HEADS;
  return (const Number*)from.data + at * from.rows * from.columns;
}

// a // N.
template <int N, class A>
inline A quotient(A a) {
  if constexpr (N == 1) return a;
  else if constexpr ((N & (N - 1)) == 0) return a >> __builtin_ctz(N);
  else return floor_div(a, N);
}

inline bool within(int n, int64_t count) { return n >= 0 && n < count; }

inline ivec mask_of(bool x) { return splat(truth(x)); }
inline ivec mask_of(ivec x) { return x; }

// The mask of `test(x)`, lane by lane.
template <class Test>
inline ivec by_lane(ivec x, const Test& test) {
  int32_t from[LANES], to[LANES];
  std::memcpy(from, &x, sizeof x);
  for (int n = 0; n < LANES; ++n) to[n] = truth(test(from[n]));
  std::memcpy(&x, to, sizeof x);
  return x;
}
