#pragma once
#include <algorithm>
#include <memory>
#include <new>

#include "paged.h"
#include "paged_attend.h"
#include "row_sums.h"

// ---- Keys that requests of few queries share, because their rows of the table begin with the same pages: a tile of
// these that all the rows see in full is read once for many rows.
struct FewRow {
  int64_t request, row;  // of q
  int set;
};

struct RowSet {  // rows first .. first + count - 1, of requests that begin with the same pages
  int64_t first, count;
  int tiles;  // key tiles from 0 on that lie in these pages, before all the rows
};

constexpr int ROWS_TOGETHER = 16;  // that a task reads the keys of a tile for

// How many pages from the first on are the same for two requests, of those that lie before the queries of both.
inline int64_t same_pages(const sparsec_paged_call& call, int64_t a, int64_t b) {
  const int32_t *of_a = call.table + a * call.most_pages, *of_b = call.table + b * call.most_pages;
  const int64_t most = minimum(tokens_before(call, a), tokens_before(call, b)) / call.page_size;
  return std::mismatch(of_a, of_a + most, of_b).first - of_a;
}

// The rows of the requests that have few, set by set.
struct FewRows {
  std::unique_ptr<FewRow[]> rows;  // null if memory ran out
  std::unique_ptr<RowSet[]> set_of;
  std::unique_ptr<int32_t[]> met;  // [sets, packs, tiles]: how many rows see a tile in full
  int64_t count = 0;
  int sets = 0, tiles = 0, most = 1;  // the most tiles of a set; the most tasks of a row

  explicit FewRows(const sparsec_paged_call& call)
      : rows(new (std::nothrow) FewRow[call.tokens + 1]), set_of(new (std::nothrow) RowSet[call.requests + 1]) {
    const std::unique_ptr<bool[]> placed(new (std::nothrow) bool[call.requests + 1]());
    if (!placed || !set_of) rows.reset();
    for (int64_t r = 0; rows && r < call.requests; ++r)
      if (!placed[r] && is_few(call, r)) add_set(call, r, placed.get());
    met.reset(new (std::nothrow) int32_t[int64_t(sets) * PACK_COUNT * tiles + 1]());
    if (!met) rows.reset();
  }

  static bool is_few(const sparsec_paged_call& call, int64_t r) {
    return count_of(call, r) > 0 && count_of(call, r) <= call.few;
  }

  // The set of request r, the first that is in none.
  void add_set(const sparsec_paged_call& call, int64_t r, bool* placed) {
    RowSet& set = set_of[sets];
    int64_t pages = INT32_MAX, requests = 0;
    set.first = count;
    for (int64_t s = r; s < call.requests; ++s) {
      const int64_t same = s == r || placed[s] || !MAY_SHARE || !is_few(call, s) ? 0 : same_pages(call, r, s);
      if (s != r && same == 0) continue;
      if (s != r) pages = std::min(pages, same);
      for (int64_t row = call.starts[s]; row < call.starts[s + 1]; ++row) rows[count++] = {s, row, sets};
      most = maximum(most, tasks_of(call, s, 0));
      placed[s] = true, ++requests;
    }
    const int64_t keys = requests > 1 ? pages * call.page_size : 0;
    set.count = count - set.first, set.tiles = keys < KEYS_A_TASK ? 0 : int(keys / KEY_TILE);
    tiles = maximum(tiles, set.tiles), ++sets;
  }

  int32_t* met_by(int set, int64_t pack) const { return met.get() + (int64_t(set) * PACK_COUNT + pack) * tiles; }
};

// Lets a row leave the tiles of its set to these; or, if `counting`, be counted among those that see them.
inline void set_shared(Row& w, const FewRows& few, const FewRow& row, int64_t pack, bool counting) {
  const RowSet& set = few.set_of[row.set];
  w.met = few.met_by(row.set, pack), w.tiles = set.tiles, w.sharing = counting ? 0 : int(set.count);
}

// Whether the row leaves a full tile to its set, or is counted.
inline bool is_shared(Row& w, int tile) {
  if (tile >= w.tiles) return false;
  if (w.sharing == 0) ++w.met[tile];
  return w.sharing == 0 || w.met[tile] == w.sharing;
}

// Tiles that are left to the set, or counted, have no turns.
inline bool shares_tiles(const Row& w) { return w.tiles > 0; }

inline void start_row(Row& w, const sparsec_paged_call& call, const FewRow& row, int64_t pack) {
  const int64_t first = place_row(w, call, row.request, row.row);
  place_heads(w, call, row.request, first, PACKS[pack].heads, PACKS[pack].size);
}

// Counts, of a pack, the rows of a set that see each tile in full.
inline void count_tiles(Row& w, const sparsec_paged_call& call, const FewRows& few, int set, int64_t pack) {
  const RowSet& of = few.set_of[set];
  for (int64_t n = of.first; n < of.first + of.count && of.tiles > 0; ++n) {
    set_shared(w, few, few.rows[n], pack, true);
    start_row(w, call, few.rows[n], pack);
    w.turn = w.first = w.stop = w.waiting = 0;
    visit(w, call.lists, w.heads[0]);
  }
}

// Attends to one share of the tiles of a set, for ROWS_TOGETHER rows of it from row `n` on, if some begin there; leaves
// what each head has at sums[(row * HEADS + head) * apart], nothing of a share that there is not.
inline void attend_shared(Row* w, const sparsec_paged_call& call, const FewRows& few, int64_t n, int64_t pack,
                          int share, int64_t apart, Sum* sums) {
  const FewRow* rows = few.rows.get() + n;
  const RowSet& set = few.set_of[rows->set];
  if (set.tiles == 0 || (n - set.first) % ROWS_TOGETHER != 0) return;
  const int64_t count = std::min<int64_t>(ROWS_TOGETHER, set.first + set.count - n);
  const int32_t* met = few.met_by(rows->set, pack);
  const int64_t found = std::count(met, met + set.tiles, int32_t(set.count));
  const int64_t shares = shares_of(found * KEY_TILE, MOST_TASKS);
  const int64_t first = share < shares ? found * share / shares : found,
                stop = share < shares ? found * (share + 1) / shares : found;
  for (int64_t r = 0; r < count; ++r) {
    start_row(w[r], call, rows[r], pack);
    load_query(w[r], call, rows[r].request, rows[r].row, 0);
  }
  const auto attend_all = [&] {
    for (int64_t r = count - 1; r >= 0; --r) {
      std::copy_n(w->at, w->waiting, w[r].at);
      w[r].waiting = w->waiting;
      attend(w[r]);
    }
  };
  int64_t turn = 0;
  for (int tile = 0; tile < set.tiles && turn < stop; ++tile) {
    if (met[tile] != set.count || turn++ < first) continue;
    if (w->waiting + KEY_TILE > BATCH) attend_all();
    for (int key = 0; key < KEY_TILE; ++key) w->at[w->waiting++] = tile * KEY_TILE + key;
  }
  attend_all();
  for (int64_t r = 0; r < count; ++r) keep_sums(w[r], first == stop, apart, sums + r * HEADS * apart);
}
