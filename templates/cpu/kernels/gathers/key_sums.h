#pragma once
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "../own_keys.h"
#include "../parts.h"
#include "../printed/packs.h"

// ---- What rows give the keys that they list themselves, in shares of the query tiles of a KV group, each a task.
constexpr int64_t OWN_TASKS = 16, OWN_BYTES = 256 << 20;  // fixed, for they decide the order of sums

template <class Call, int NUMBERS>
struct KeySums {
  const Tiling<Call> tiling;  // of the queries
  const int64_t groups, shares, keys, tasks;
  const std::unique_ptr<float[]> sums;  // [groups, shares, keys, NUMBERS], each share set by its task

  static int64_t shares_of(const Call& call) {
    const int64_t groups = std::max<int64_t>(call.batch * KV_HEADS, 1), floats = groups * call.n_k * NUMBERS;
    const int64_t most = OWN_BYTES / std::max<int64_t>(floats * sizeof(float), 1);
    return std::max<int64_t>(std::min((OWN_TASKS + groups - 1) / groups, most), 1);
  }

  explicit KeySums(const Call& call)
      : tiling(call, QUERY_TILE, false),
        groups(call.batch * KV_HEADS),
        shares(shares_of(call)),
        keys(call.n_k),
        tasks(groups * shares),
        sums(new (std::nothrow) float[tasks * keys * NUMBERS]) {}
  bool ready() const { return tiling.before && sums; }
  float* of(int64_t task) const { return sums.get() + task * keys * NUMBERS; }

  // Calls `row(w, b, row, k_row, sums)` for every row of one share and every pack of heads, which w then has; `sums`
  // are those of the key at position 0, which is row `k_row`. `source(b, g, first)`: where the keys of a group lie, row
  // `first` at position 0. Returns 1 when memory ran out.
  template <class Row, class SourceOf, class Each>
  int by_rows(int64_t task, const SourceOf& source, const Each& row) const {
    Row* w = static_cast<Row*>(std::aligned_alloc(64, (sizeof(Row) + 63) / 64 * 64));
    if (!w) return 1;
    for (int n = 0; n < PANEL; ++n) w->lane[n / LANES][n % LANES] = n;
    std::fill(of(task), of(task + 1), 0.0f);
    const int64_t group = task / shares, share = task % shares, tiles = tiling.count();
    for (int64_t n = tiles * share / shares; n < tiles * (share + 1) / shares; ++n)
      of_tile(*w, group / KV_HEADS, group % KV_HEADS, tiling[n], of(task), source, row);
    std::free(w);
    return 0;
  }

 private:
  template <class Row, class SourceOf, class Each>
  void of_tile(Row& w, int64_t b, int64_t g, const Tile& tile, float* sums, const SourceOf& source,
               const Each& row) const {
    const Part& part = tile.part;
    w.source = source(b, g, part.k_row);
    w.inputs = Inputs(tiling.call, b, part.q_row, part.k_row, part.n_k);
    w.begin = part.begin, w.end = part.end, w.n_k = part.n_k;
    w.turn = 0, w.first = 0, w.stop = INT32_MAX;
    const bool alone = each_alone(tiling.call);
    for (const Pack& pack : PACKS)
      for (int n = 0; n < pack.size && pack.group == g; n += w.pack) {
        w.heads = pack.heads + n, w.pack = alone ? 1 : pack.size;
        for (int i = maximum(tile.base, part.q0); i < minimum(tile.base + QUERY_TILE, part.q1); ++i) {
          w.i0 = w.i1 = i;
          row(w, b, i + part.q_row, part.k_row, sums + part.k_row * NUMBERS);
        }
      }
  }
};
