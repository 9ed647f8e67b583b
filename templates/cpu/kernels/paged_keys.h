#pragma once
#include <algorithm>

#include "nothing.h"
#include "paged.h"

// ---- Where the keys and values of a tile lie: in the pages of a request.
struct Source {
  StoredMatrix k, v;  // of page 0 and the head's group; rows are those of a page
  int64_t k_page, v_page;  // from page to page
  const int32_t* table;  // of the request
  int64_t pages;
  int size;  // of a page
  int group, stop;  // queries from position stop - 1 on are the call's, or to come
};

// For head h of request r.
Source source_of(const sparsec_paged_call& call, int64_t r, int64_t h, int64_t) {
  const int64_t g = h / (HEADS / KV_HEADS);
  return {matrix<Stored>(call.k, call.k_stride, 0, g, 0),
          matrix<Stored>(call.v, call.v_stride, 0, g, 0),
          call.k_stride[0],
          call.v_stride[0],
          call.table + r * call.most_pages,
          call.pages,
          int(call.page_size),
          int(g),
          tokens_before(call, r) + 1};
}

// The page of the request's keys from n * size on: the nearest that there is, whatever the table says.
inline int64_t page_of(const Source& from, int n) {
  const int64_t page = from.table[n];
  return page < 0 ? 0 : page < from.pages ? page : from.pages - 1;
}

// Printed for the pattern: whether no query from position stop - 1 on, of a head of the group, needs one of the keys
// first .. end - 1.
bool is_dead(int group, int first, int end, int stop);

// Points at keys and values first .. first + count, in place or in `key` and `value`. A page is looked up for the sake
// of keys that are not dead.
inline void point_tile(const Source& from, int, int first, int count, operand (*key)[row_of(D)],
                       operand (*value)[row_of(DV)], const operand** keys, const operand** values) {
  for (int n = 0, rows; n < count; n += rows) {
    const int number = (first + n) / from.size, row = (first + n) - number * from.size;
    rows = minimum(from.size - row, count - n);
    if (is_dead(from.group, first + n, first + n + rows, from.stop)) {
      std::fill(keys + n, keys + n + rows, NOTHING);
      std::fill(values + n, values + n + rows, NOTHING);
      continue;
    }
    const int64_t page = page_of(from, number);
    const StoredMatrix k = {from.k.data + page * from.k_page, from.k.row, from.k.dim};
    const StoredMatrix v = {from.v.data + page * from.v_page, from.v.row, from.v.dim};
    point<D>(k, row, rows, key + n, keys + n);
    point<DV>(v, row, rows, value + n, values + n);
  }
}
