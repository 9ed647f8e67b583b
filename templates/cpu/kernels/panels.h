#pragma once
#include "tiles.h"
#include "transpose.h"

// ---- Panels: the queries of a tile across lanes, and what their rows have at the end.
void load_queries(Work& w, const Matrix& q, float scale) {
  w.products.start();
  w.ahead.clear();
  const float factor = scale * Modifiers::UNIT;
  float peak = -INF, total = 0.0f;
  w.modifiers.start(peak, total);
  // Absent rows score 0 and are never stored.
  if (w.i1 - w.i0 + 1 < QUERY_TILE || D % DEPTH != 0) std::memset(w.query, 0, sizeof w.query);
  load_rows<D>(q, w.i0, w.i1 - w.i0 + 1, w.query[w.i0 - w.base], row_of(D));
  for (int p = w.first_panel(); p <= w.last_panel(); ++p) {
    Panel& panel = w.panel[p];
    to_panel(w.query[p * PANEL], row_of(D), panel.q);
    Operands::scale(panel.q[0], units_of(D) * VECS, factor);
    panel.factor = factor;
    std::memset(panel.o, 0, sizeof panel.o);
    EACH(v, VECS) panel.peak[v] = splat(peak), panel.total[v] = splat(total);
    EACH(v, VECS) panel.at[v] = w.lane[v] + (w.base + p * PANEL);
  }
}

// Divides and stores the rows that are present; a row without a live key becomes 0, its lse what it started with.
void finish(Work& w, element* out, int64_t row, int64_t dim, float* lse, int64_t lse_row) {
  w.products.stop();
  float lse_of[QUERY_TILE];
  for (int p = w.first_panel(); p <= w.last_panel(); ++p) {
    Panel& panel = w.panel[p];
    vec inverse[VECS];
    EACH(v, VECS) {
      const vec total = panel.total[v];
      inverse[v] = total == vec{} ? vec{} : 1.0f / total;
      store(lse_of + p * PANEL + v * LANES,
            total == vec{} ? splat(-INF) : (panel.peak[v] + log2(total)) * 0.6931471806f);
    }
    for (int d = 0; d < DV; ++d) EACH(v, VECS) store(panel.o[d] + v * LANES, load(panel.o[d] + v * LANES) * inverse[v]);
    from_panel(panel.o, w.rows[p * PANEL], WIDEST);
  }
  for (int i = w.i0; i <= w.i1; ++i) {
    store_row<DV>(w.rows[i - w.base], out + (i - w.i0) * row, dim);
    lse[(i - w.i0) * lse_row] = lse_of[i - w.base];
  }
}
