#pragma once
#include "../row_mass.h"
#include "key_sums.h"

// ---- Keys that rows list themselves: the weights that each row gives its own keys.
// Printed for the pattern: visits the keys that the row lists itself.
void visit_own(Row& w, const sparsec_list* lists, int head);

struct OwnMass : KeySums<sparsec_mass_call, SHARE> {  // of a group's heads
  using KeySums::KeySums;

  // One task. Returns 1 when memory ran out.
  int run(const sparsec_mass_call& call, int64_t task) const {
    const auto source = [&](int64_t b, int64_t g, int64_t first) {
      const StoredMatrix k = matrix<Stored>(call.k, call.k_stride, b, g, first);
      return Source{k, k};
    };
    return by_rows<Row>(task, source, [&](Row& w, int64_t b, int64_t row, int64_t k_row, float* sums) {
      for (int r = 0; r < w.pack; ++r) w.sums[r] = sums + w.heads[r] % SHARE;
      w.apart = SHARE;
      load_query(w, call, b, row, k_row, call.lse_stride);
      visit_own(w, call.lists, w.heads[0]);
      attend(w);
    });
  }

  // What all shares have for key `row` of head h of sequence b.
  float at(int64_t b, int64_t h, int64_t row) const {
    float sum = 0.0f;
    for (int64_t share = 0; share < shares; ++share)
      sum += of((b * KV_HEADS + h / SHARE) * shares + share)[row * SHARE + h % SHARE];
    return sum;
  }
};
