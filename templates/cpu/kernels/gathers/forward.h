#pragma once
#include "../printed/packs.h"
#include "../row_attend.h"
#include "../transpose.h"

// ---- Keys that rows list themselves: before the tiles of a head, the soft-max of each row over its own keys.
constexpr int TOGETHER = SHARE;  // heads of one task, which read the keys of their lists once

struct Gathered {  // what the rows of a query tile have seen, of each head of a KV group
  Row row;
  float o[SHARE][QUERY_TILE][ValueSteps::WIDE], peak[SHARE][QUERY_TILE], total[SHARE][QUERY_TILE];
};

// Printed for the pattern: visits the keys that the row lists itself.
void visit_own(Row& w, const sparsec_list* lists, int head);

// For the rows of w's tile and the TOGETHER heads from `head` on. `q_row`, `k_row`: the rows of q and k at position 0.
template <class Work, class Call>
void gather_rows(Work& w, const Call& call, int64_t b, int64_t head, int64_t q_row, int64_t k_row) {
  Gathered& to = w.gathered;
  Row& row = to.row;
  row.source = w.source, row.inputs = w.inputs;
  row.begin = w.begin, row.end = w.end, row.n_k = w.n_k;
  row.turn = 0, row.first = 0, row.stop = INT32_MAX;
  for (int n = 0; n < PANEL; ++n) row.lane[n / LANES][n % LANES] = n;
  const bool alone = each_alone(call);
  for (const Pack& pack : PACKS)
    for (int n = 0; n < pack.size && pack.group == head / SHARE; n += row.pack) {
      row.heads = pack.heads + n, row.pack = alone ? 1 : pack.size;
      for (int i = w.i0; i <= w.i1; ++i) {
        row.i0 = row.i1 = i;
        load_query(row, call, b, i + q_row, k_row);
        for (int r = 0; r < row.pack; ++r) row.modifiers[r].start(row.peak[r], row.total[r]);
        visit_own(row, call.lists, row.heads[0]);
        attend(row);
        for (int r = 0; r < row.pack; ++r) {
          const int64_t h = row.heads[r] - head;
          std::copy(row.o[r], row.o[r] + ValueSteps::WIDE, to.o[h][i - w.base]);
          to.peak[h][i - w.base] = row.peak[r], to.total[h][i - w.base] = row.total[r];
        }
      }
    }
}

// Starts the panels of the tile, which hold its queries, with what head `h` of the task has seen.
template <class Work>
void resume(Work& w, int64_t h) {
  const Gathered& from = w.gathered;
  for (int i = w.i0; i <= w.i1; ++i) {
    const int n = i - w.base, v = n % PANEL / LANES, lane = n % LANES;
    for (int d = 0; d < DV; ++d) w.rows[n][d] = from.o[h][n][RowOperands::place(d)];
    w.panel[n / PANEL].peak[v][lane] = from.peak[h][n];
    w.panel[n / PANEL].total[v][lane] = from.total[h][n];
  }
  for (int p = w.first_panel(); p <= w.last_panel(); ++p) to_panel(w.rows[p * PANEL], WIDEST, w.panel[p].o);
}
