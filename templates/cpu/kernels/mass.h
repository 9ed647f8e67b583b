#pragma once
#include <algorithm>
#include <cstdlib>

#include "mass_tiles.h"
#include "printed/columns_mass.h"
#include "printed/own_mass.h"

// ---- Key tiles, and after them the keys that an input lists for all queries.
void load_keys(Work& w, const Matrix& k, int base, float scale) {
  const int first = w.j0 - base, count = w.j1 - w.j0 + 1;
  if (count < KEY_TILE) std::memset(w.key, 0, sizeof w.key);
  load_rows<D>(k, w.j0, count, w.key[first]);
  lay_keys(w, first, count, scale);
  for (int p = w.first_panel(); p <= w.last_panel(); ++p)
    EACH(v, VECS) w.panel[p].at[v] = w.lane[v] + (base + p * PANEL);
}

void run_tile(Work& w, const sparsec_mass_call& call, const OwnMass& own, int64_t b, int64_t h, const Tile& tile) {
  const Part& part = tile.part;
  w.j0 = maximum(tile.base, part.begin);
  w.j1 = minimum(tile.base + KEY_TILE, part.end) - 1;
  open_head(w, call, b, h, part);
  load_keys(w, matrix(call.k, call.k_stride, b, h / (HEADS / KV_HEADS), part.k_row), tile.base, call.scale);
  if (w.begin < w.end) visit(w, call.lists, int(h));
  float* to = call.mass + (b * HEADS + h) * call.n_k + part.k_row;
  for (int j = w.j0; j <= w.j1; ++j) to[j] = mass_at(w, j - tile.base) + own.at(b, h, j + part.k_row);
}

// Tasks: every key tile of every query head; each is computed whole by one thread.
int mass(const sparsec_mass_call& call) {
  if (call.n_q == 0) {  // nor has q an address to count from
    std::fill_n(call.mass, call.batch * HEADS * call.n_k, 0.0f);
    return 0;
  }
  const Tiling<sparsec_mass_call> tiling(call, KEY_TILE, true);
  const OwnMass gathered(call);
  const ColumnMass listed(call, tiling);
  if (!tiling.before || !gathered.ready()) return 1;
  const int64_t tiles = tiling.count(), tasks = call.batch * HEADS * tiles;
  if (tasks == 0) return 0;
  int failed = 0;
#pragma omp parallel num_threads(int(std::min<int64_t>(call.threads, tasks + gathered.tasks))) reduction(| : failed)
  {
    Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
    failed = w == nullptr;
    for (int n = 0; n < PANEL && w; ++n) w->lane[n / LANES][n % LANES] = n;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < gathered.tasks; ++task) failed |= gathered.run(call, task);
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < tasks; ++task)  // the first keys first: causal, most queries see them
      if (w) run_tile(*w, call, gathered, task / tiles / HEADS, task / tiles % HEADS, tiling[task % tiles]);
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < listed.tasks; ++task)
      if (w) listed.run(*w, call, tiling, task);
    std::free(w);
  }
  return failed;
}
