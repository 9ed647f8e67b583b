#pragma once
#include "printed/packs.h"
#include "row_tiles.h"
#include "share_count.h"

// ---- One share of a row, over a cache or over pages, whose header has what is asked of the call.
// Row `row` of sequence b; returns the row of position 0.
template <class Work, class Call>
inline int64_t place_row(Work& w, const Call& call, int64_t b, int64_t row) {
  w.n_k = w.end = tokens_before(call, b) + int(count_of(call, b));
  const int64_t first = rows_end(call, b) - w.n_k;
  w.begin = 0, w.i0 = w.i1 = int(row - first);
  return first;
}

// Of the row some heads of one pack, which see the same keys.
template <class Work, class Call>
inline void place_heads(Work& w, const Call& call, int64_t b, int64_t first, const int* heads, int count) {
  w.heads = heads, w.pack = count;
  w.source = source_of(call, b, heads[0], first);
  w.inputs = Inputs(call, b, first, 0, w.n_k, first_query(call, b));
}

// Attends to one share of row `row`, by as many heads of the pack at a time as see the same keys: w has them between
// `start()` and `end(false)`; of a share that is left idle `end(true)` alone. Nothing of padding, and of a share that
// the row has not.
template <class Work, class Call, class Start, class End>
void attend_share(Work& w, const Call& call, int64_t b, const Pack& pack, int64_t row, int task, const Start& start,
                  const End& end) {
  const int64_t first = place_row(w, call, b, row);
  const int tasks = tasks_of(call, b, pack.group);
  if (w.i0 < tokens_before(call, b) || task >= tasks) return;
  const bool alone = each_alone(call);
  for (int n = 0; n < pack.size; n += w.pack) {
    place_heads(w, call, b, first, pack.heads + n, alone ? 1 : pack.size);
    w.turn = w.first = w.stop = w.waiting = 0;
    if (tasks > 1) visit(w, call.lists, w.heads[0]);  // only counts the tiles
    const int64_t tiles = tasks > 1 ? w.turn : INT32_MAX, shares = shares_of(tiles * KEY_TILE, tasks);
    w.turn = 0, w.first = int(tiles * task / shares), w.stop = int(tiles * (task + 1) / shares);
    if (task < shares) {
      start();
      visit(w, call.lists, w.heads[0]);
      attend(w);
    }
    end(task >= shares);
  }
}
