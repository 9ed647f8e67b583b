#pragma once
#include "elements.h"

// ---- Memory that is fetched while other rows are computed: a task's rows come in an order that no processor guesses.
template <int BYTES, bool WRITTEN>
struct RowsAhead {  // of BYTES each
  const char* at;
  int64_t apart;  // bytes from row to row
  int left;

  void start(const void* first, int64_t bytes, int rows) { at = (const char*)first, apart = bytes, left = rows; }
  bool fetch() {
    if (left == 0) return false;
    for (int n = 0; n < BYTES; n += 64) __builtin_prefetch(at + n, WRITTEN, WRITTEN ? 3 : 2);  // lines of 64 bytes
    at += apart, --left;
    return true;
  }
};

struct Ahead {
  RowsAhead<D * sizeof(stored), false> keys;  // of the next tile
  RowsAhead<DV * sizeof(stored), false> values;
  RowsAhead<DV * sizeof(element), true> out;  // of the rows at hand
  RowsAhead<D * sizeof(element), false> queries;  // of the rows that follow

  void clear() { keys.left = values.left = out.left = queries.left = 0; }
  // One row.
  void fetch() { keys.fetch() || values.fetch() || out.fetch() || queries.fetch(); }
};
