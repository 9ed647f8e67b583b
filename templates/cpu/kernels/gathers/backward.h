#pragma once
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "../own_keys.h"
#include "../parts.h"
#include "../query_tiles.h"
#include "../printed/packs.h"
#include "row_gradients.h"

// ---- Keys that rows list themselves: dq of each row over its own keys, and what the rows of one task give dk and dv.
constexpr int OWN_SHARES = 1;  // matrices of dq beside those of the tiles
constexpr int64_t OWN_TASKS = 16, OWN_BYTES = 256 << 20;  // fixed, for they decide the order of sums

// Printed for the pattern: visits the keys that the row lists itself.
void visit_own(Row& w, const sparsec_list* lists, int head);

struct OwnGradients {
  const Tiling<sparsec_backward_call> tiling;  // of the queries
  int64_t groups, shares, keys, tasks;
  const std::unique_ptr<float[]> sums;  // dk and dv: [groups, shares, keys, OWN_WIDE], each share set by its task

  static int64_t shares_of(const sparsec_backward_call& call) {
    const int64_t groups = std::max<int64_t>(call.batch * KV_HEADS, 1), floats = groups * call.n_k * OWN_WIDE;
    const int64_t most = OWN_BYTES / std::max<int64_t>(floats * sizeof(float), 1);
    return std::max<int64_t>(std::min((OWN_TASKS + groups - 1) / groups, most), 1);
  }

  explicit OwnGradients(const sparsec_backward_call& call)
      : tiling(call, QUERY_TILE, false),
        groups(call.batch * KV_HEADS),
        shares(shares_of(call)),
        keys(call.n_k),
        tasks(groups * shares),
        sums(new (std::nothrow) float[tasks * keys * OWN_WIDE]) {}
  bool ready() const { return tiling.before && sums; }
  float* of(int64_t task) const { return sums.get() + task * keys * OWN_WIDE; }

  // dq, dk and dv of one share of the query tiles. `lse`, `delta`: [B, H, Nq]; `dq`: [B, H, Nq, WIDE].
  // Returns 1 when memory ran out.
  int run(const sparsec_backward_call& call, int64_t task, const float* lse, const float* delta, float* dq) const {
    Row* w = static_cast<Row*>(std::aligned_alloc(64, (sizeof(Row) + 63) / 64 * 64));
    if (!w) return 1;
    for (int n = 0; n < PANEL; ++n) w->lane[n / LANES][n % LANES] = n;
    std::fill(of(task), of(task + 1), 0.0f);
    const int64_t group = task / shares, share = task % shares, tiles = tiling.count();
    for (int64_t n = tiles * share / shares; n < tiles * (share + 1) / shares; ++n)
      run_tile(*w, call, group / KV_HEADS, group % KV_HEADS, tiling[n], lse, delta, dq, of(task));
    std::free(w);
    return 0;
  }

  static void run_tile(Row& w, const sparsec_backward_call& call, int64_t b, int64_t g, const Tile& tile,
                       const float* lse, const float* delta, float* dq, float* sums) {
    const Part& part = tile.part;
    w.source = source_of(call, b, g * SHARE, part.k_row);
    w.inputs = Inputs(call, b, part.q_row, part.k_row, part.n_k);
    w.begin = part.begin, w.end = part.end, w.n_k = part.n_k;
    w.turn = 0, w.first = 0, w.stop = INT32_MAX;
    w.sums = sums + part.k_row * OWN_WIDE;
    const bool alone = tells_heads_apart(call);
    for (const Pack& pack : PACKS)
      for (int n = 0; n < pack.size && pack.group == g; n += w.pack) {
        w.heads = pack.heads + n, w.pack = alone ? 1 : pack.size;
        for (int i = maximum(tile.base, part.q0); i < minimum(tile.base + QUERY_TILE, part.q1); ++i) {
          w.i0 = w.i1 = i;
          load_query(w, call, b, i + part.q_row, part.k_row, lse, delta);
          visit_own(w, call.lists, w.heads[0]);
          attend(w);
          for (int r = 0; r < w.pack; ++r) {
            float* to = dq + ((b * HEADS + w.heads[r]) * call.n_q + i + part.q_row) * WIDE;
            const bool none = w.lse[r] == INF;
            for (int d = 0; d < WIDE; ++d) to[d] = none || d >= D ? 0.0f : w.dq[r][place(d)];
          }
        }
      }
  }

  // Adds what all shares have for `count` keys from row `first` on, to rows of dk and dv.
  void add(int64_t group, int64_t first, int count, float (*dk)[WIDE], float (*dv)[DV]) const {
    for (int64_t share = 0; share < shares; ++share) {
      const float* from = of(group * shares + share) + first * OWN_WIDE;
      for (int n = 0; n < count; ++n, from += OWN_WIDE) {
        for (int d = 0; d < D; ++d) dk[n][d] += from[place(d)];
        for (int d = 0; d < DV; ++d) dv[n][d] += from[KeySteps::WIDE + place(d)];
      }
    }
  }

  // The same of what the keys add to the scores of the group's query head `h`.
  void add_bias(int64_t group, int64_t first, int count, int64_t h, float* dbias) const {
    for (int64_t task = group * shares; task < (group + 1) * shares; ++task) {
      const float* from = of(task) + first * OWN_WIDE + BOTH_WIDE + h;
      for (int n = 0; n < count; ++n) dbias[n] += from[n * OWN_WIDE];
    }
  }
};
