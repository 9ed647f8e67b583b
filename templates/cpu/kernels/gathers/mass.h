#pragma once
#include <algorithm>

#include "../elements.h"
#include "../printed/modifiers.h"
#include "key_sums.h"

// ---- Keys that rows list themselves: the weights that each row gives its own keys.
struct Row : Waiting {  // one thread's scratch
  float q[SHARE][KeySteps::WIDE];  // times the score's scale
  float lse[SHARE];  // in base 2; +inf for an empty row, so that its weights are 0
  float s[SHARE][BATCH];
  Modifiers modifiers[SHARE];  // of the heads' scores
  float* sums;  // of the key at position 0, SHARE numbers
};

// Printed for the pattern: visits the keys that the row lists itself.
void visit_own(Row& w, const sparsec_list* lists, int head);

// Adds the weights of the keys that wait.
void attend(Row& w) {
  if (w.waiting == 0) return;
  point_waiting(w);
  by_heads(w.pack, [&w](auto heads, int r) { score<heads.value, D, D>(w.q + r, w.key, w.key, w.waiting, w.s + r); });
  const vec lowest = splat(LOWEST_EXPONENT);
  for (int r = 0; r < w.pack; ++r) {
    for (int n = 0; n < w.waiting; n += PANEL) {
      vec p[VECS];
      ivec at[VECS];
      EACH(v, VECS) p[v] = load(w.s[r] + n + v * LANES);
      EACH(v, VECS) std::memcpy(&at[v], w.at + n + v * LANES, sizeof at[v]);
      Modifiers::Kept<VECS> kept;
      w.modifiers[r].forward(p, kept, at, &w.i0);
      EACH(v, VECS) p[v] = added(p[v], of_keys(w.modifiers[r], at[v])) - w.lse[r];
      exp2(p, lowest);
      EACH(v, VECS) store(w.s[r] + n + v * LANES, p[v]);
    }
    for (int n = 0; n < w.waiting; ++n) w.sums[int64_t(w.at[n]) * SHARE + w.heads[r] % SHARE] += w.s[r][n];
  }
  w.waiting = 0;
}

struct OwnMass : KeySums<sparsec_mass_call, SHARE> {  // of a group's heads
  using KeySums::KeySums;

  // One task. Returns 1 when memory ran out.
  int run(const sparsec_mass_call& call, int64_t task) const {
    const auto source = [&](int64_t b, int64_t g, int64_t first) {
      const Matrix k = matrix(call.k, call.k_stride, b, g, first);
      return Source{k, k};
    };
    return by_rows<Row>(task, source, [&](Row& w, int64_t b, int64_t row, int64_t k_row, float* sums) {
      w.sums = sums, w.waiting = 0;
      for (int r = 0; r < w.pack; ++r) {
        const int64_t h = w.heads[r];
        const Matrix q = matrix(call.q, call.q_stride, b, h, row);
        const float lse = call.lse[b * call.lse_stride[0] + h * call.lse_stride[1] + row * call.lse_stride[2]] * LOG2E;
        w.lse[r] = lse == -INF ? INF : lse;
        std::fill(w.q[r], w.q[r] + KeySteps::WIDE, 0.0f);
        for (int d = 0; d < D; ++d) w.q[r][place(d)] = widen(q.data[d * q.dim]) * (call.scale * Modifiers::UNIT);
        w.modifiers[r] = Modifiers(call, b, h, k_row);
      }
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
