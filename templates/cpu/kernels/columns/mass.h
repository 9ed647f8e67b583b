#pragma once
#include <algorithm>

#include "../mass_tiles.h"
#include "range.h"

// ---- Keys that an input lists for all queries: what these give them, added to what the tiles have left.
constexpr int64_t LISTED_TASKS = 32, LISTED_TILES = 8;  // fixed, for they decide the order of sums

struct Listed {  // what the keys of a range are taken from, and given to; rows are positions
  KeyRange range;
  Matrix k;
  float scale;
  float* mass;

  void load(Work& w, const int* at, int count) const {
    if (count < KEY_TILE) std::memset(w.key, 0, sizeof w.key);
    for (int n = 0; n < count; ++n) load_rows<D>(k, at[n], 1, w.key[n]);
    lay_keys(w, 0, count, scale);
  }
  void add(const Work& w, const int* at, int count) const {
    for (int n = 0; n < count; ++n) mass[at[n]] += mass_at(w, n);
  }
};

// Printed for the pattern: visits the tiles of queries that see some listed key.
void visit_columns(Work& w, const Listed& listed, const sparsec_list* lists, int head);

struct ColumnMass {  // the key tiles of a head are dealt out in shares, each a task
  const int64_t shares, tasks;

  ColumnMass(const sparsec_mass_call& call, const Tiling<sparsec_mass_call>& tiling)
      : shares(shares_of(call.batch * HEADS, tiling.before ? tiling.count() : 0)), tasks(call.batch * HEADS * shares) {}

  static int64_t shares_of(int64_t heads, int64_t tiles) {
    const int64_t wanted = (LISTED_TASKS + heads - 1) / std::max<int64_t>(heads, 1);
    return std::max<int64_t>(std::min(wanted, tiles / LISTED_TILES), 1);
  }

  void run(Work& w, const sparsec_mass_call& call, const Tiling<sparsec_mass_call>& tiling, int64_t task) const {
    const int64_t head = task / shares, share = task % shares, b = head / HEADS, h = head % HEADS;
    const int64_t tiles = tiling.count();
    by_parts(tiling, tiles * share / shares, tiles * (share + 1) / shares, [&](const KeyRange& range) {
      const Part& part = range.part;
      open_head(w, call, b, h, part);
      const Matrix k = matrix(call.k, call.k_stride, b, h / (HEADS / KV_HEADS), part.k_row);
      const Listed listed = {range, k, call.scale, call.mass + head * call.n_k + part.k_row};
      if (w.begin < w.end) visit_columns(w, listed, call.lists, int(h));
    });
  }
};
