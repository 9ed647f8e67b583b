#pragma once
#include "elements.h"
#include "printed/calls.h"
#include "share_count.h"
#include "vectors.h"

// ---- A server's pages: the requests of a call, each with a row of the table that says in which pages its keys lie.

// Tokens of request r among the call's, those before them, and the row of q after them.
inline int64_t count_of(const sparsec_paged_call& call, int64_t r) { return call.starts[r + 1] - call.starts[r]; }
inline int tokens_before(const sparsec_paged_call& call, int64_t r) { return call.lengths[r] - int(count_of(call, r)); }
inline int64_t rows_end(const sparsec_paged_call& call, int64_t r) { return call.starts[r + 1]; }
inline int first_query(const sparsec_paged_call& call, int64_t r) { return tokens_before(call, r); }

// How many tasks share a row of a request at most. Some may be left idle.
inline int tasks_of(const sparsec_paged_call& call, int64_t r, int64_t) {
  return int(shares_of(call.lengths[r], MOST_TASKS));
}

// Whether the requests have the rows of q, one after another, and no more tokens than the table has room for.
bool sound(const sparsec_paged_call& call) {
  if (call.starts[0] != 0 || call.starts[call.requests] != call.tokens) return false;
  for (int64_t r = 0; r < call.requests; ++r) {
    const int64_t count = int64_t(call.starts[r + 1]) - call.starts[r];
    if (count < 0 || count > call.lengths[r] || call.lengths[r] > call.longest) return false;
  }
  return true;
}
