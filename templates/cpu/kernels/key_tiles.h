#pragma once
#include "parts.h"
#include "query_tiles.h"
#include "transpose.h"

// ---- Key tiles: keys across the lanes of panels, and the queries of one head that they meet.
struct Rows {  // of the queries, [B, H, Nq]
  float *lse, *delta;
};

// Zeros in place of keys, and of operands of a unit, that there are not.
inline void clear_keys(Work& w, int count) {
  if (count == KEY_TILE && D % DEPTH == 0 && DV % DEPTH == 0) return;
  std::memset(w.key, 0, sizeof w.key);
  std::memset(w.value, 0, sizeof w.value);
}

// Lays `count` keys from lane `first` on across the panels, whose rows w.key and w.value have.
void lay_keys(Work& w, int first, int count, float scale) {
  w.first_lane = first, w.last_lane = first + count - 1;
  for (int n = 0; n < KEY_TILE; ++n) w.key_row[n] = w.key[n];
  w.key_units = w.key_across.of(w.key_row, KEY_TILE);
  w.present.count = 0;
  for (int n = first / DEPTH; n <= w.last_lane / DEPTH; ++n) {
    w.present.lane[w.present.count] = n * DEPTH;
    w.present.row[w.present.count++] = w.key_units[n];
  }
  w.present.finite = all_finite<D>(w.key_row + first, count);
  const float factor = scale * Modifiers::UNIT;
  for (int p = w.first_panel(); p <= w.last_panel(); ++p) {
    to_panel(w.key[p * PANEL], WIDE, w.panel[p].k);
    Operands::scale(w.panel[p].k[0], units_of(D) * VECS, factor);
    w.panel[p].factor = factor;
    to_panel(w.value[p * PANEL], row_of(DV), w.panel[p].v);
    EACH(v, VECS) {
      const ivec lane = w.lane[v] + p * PANEL;
      w.panel[p].present[v] = (lane >= first) & (lane <= w.last_lane);
    }
    std::memset(w.panel[p].dk, 0, sizeof w.panel[p].dk);
    std::memset(w.panel[p].dv, 0, sizeof w.panel[p].dv);
  }
}

// Turns the sums of the panels into rows of w.dk and w.dv.
void take_keys(Work& w) {
  for (int p = w.first_panel(); p <= w.last_panel(); ++p) {
    from_panel(w.panel[p].dk, w.dk[p * PANEL], WIDE);
    from_panel(w.panel[p].dv, w.dv[p * PANEL], DV);
  }
}

// What the keys add to the scores of one query head: the sums of its gradient before the queries, and after them.
void start_bias(Work& w) {
  if constexpr (Modifiers::KEYS)
    for (int p = w.first_panel(); p <= w.last_panel(); ++p) EACH(v, VECS) w.panel[p].dbias[v] = vec{};
}

inline float bias_at(const Work& w, int lane) {
  return w.panel[lane / PANEL].dbias[lane % PANEL / LANES][lane % LANES];
}

void open_part(Work& w, const sparsec_backward_call& call, int64_t b, const Part& part) {
  w.origin = floor_div(part.q0, QUERY_TILE) * QUERY_TILE;
  w.begin = part.q0 - w.origin, w.end = part.q1 - w.origin, w.n_k = part.n_k;
  w.q_row = part.q_row, w.n_q = call.n_q;
  w.inputs = Inputs(call, b, part.q_row, part.k_row, part.n_k);
}

void open_head(Work& w, const sparsec_backward_call& call, const Rows& rows, const Sums& sums, int64_t b, int64_t h,
               const Part& part) {
  const int64_t row = (b * HEADS + h) * call.n_q;
  w.queries = matrix(call.q, call.q_stride, b, h, part.q_row);
  w.grads = matrix(call.grad_out, call.grad_out_stride, b, h, part.q_row);
  w.lse = rows.lse + row, w.delta = rows.delta + row;
  const int64_t n = h % (HEADS / KV_HEADS);
  w.dq = sums.dq + n * call.n_q * WIDE, w.touched = sums.touched + n * chunks_of(call);
  w.modifiers = Modifiers(call, b, h, part.k_row);
}
