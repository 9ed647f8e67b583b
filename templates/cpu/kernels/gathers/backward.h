#pragma once
#include "../query_tiles.h"
#include "key_sums.h"
#include "row_gradients.h"

// ---- Keys that rows list themselves: dq of each row over its own keys, and what the rows of one task give dk and dv.
constexpr int OWN_SHARES = 1;  // matrices of dq beside those of the tiles

// Printed for the pattern: visits the keys that the row lists itself.
void visit_own(Row& w, const sparsec_list* lists, int head);

struct OwnGradients : KeySums<sparsec_backward_call, OWN_WIDE> {  // of dk and dv
  using KeySums::KeySums;

  // dq, dk and dv of one task. `lse`, `delta`: [B, H, Nq]; `dq`: [B, H, Nq, WIDE]. Returns 1 when memory ran out.
  int run(const sparsec_backward_call& call, int64_t task, const float* lse, const float* delta, float* dq) const {
    const auto source = [&](int64_t b, int64_t g, int64_t first) { return source_of(call, b, g * SHARE, first); };
    return by_rows<Row>(task, source, [&](Row& w, int64_t b, int64_t row, int64_t k_row, float* sums) {
      w.sums = sums;
      load_query(w, call, b, row, k_row, lse, delta);
      visit_own(w, call.lists, w.heads[0]);
      attend(w);
      for (int r = 0; r < w.pack; ++r) {
        float* to = dq + ((b * HEADS + w.heads[r]) * call.n_q + row) * WIDE;
        const bool none = w.lse[r] == INF;
        for (int d = 0; d < WIDE; ++d) to[d] = none || d >= D ? 0.0f : w.dq[r][wide_place(d)];
      }
    });
  }

  // Adds what all shares have for `count` keys from row `first` on, to rows of dk and dv.
  void add(int64_t group, int64_t first, int count, float (*dk)[WIDE], float (*dv)[DV]) const {
    for (int64_t share = 0; share < shares; ++share) {
      const float* from = of(group * shares + share) + first * OWN_WIDE;
      for (int n = 0; n < count; ++n, from += OWN_WIDE) {
        for (int d = 0; d < D; ++d) dk[n][d] += from[wide_place(d)];
        for (int d = 0; d < DV; ++d) dv[n][d] += from[KeySteps::WIDE + wide_place(d)];
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
