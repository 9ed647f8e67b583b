#pragma once
#include <algorithm>
#include <cstdlib>

#include "printed/columns_gradients.h"
#include "printed/own_gradients.h"
#include "rows.h"
#include "shares.h"

// ---- Tasks: one share of the key tiles of one key head, computed whole by one thread.
void load_keys(Work& w, const Matrix& k, const Matrix& v, int base, float scale) {
  const int first = w.j0 - base, count = w.j1 - w.j0 + 1;
  clear_keys(w, count);
  load_rows<D>(k, w.j0, count, w.key[first], WIDE);
  load_rows<DV>(v, w.j0, count, w.value[first], row_of(DV));
  lay_keys(w, first, count, scale);
  for (int p = w.first_panel(); p <= w.last_panel(); ++p)
    EACH(v, VECS) w.panel[p].at[v] = w.lane[v] + (base + p * PANEL);
}

// The first key is row `row` of all keys of the group.
void store_keys(Work& w, const OwnGradients& own, const ColumnGradients& listed, int64_t group, int64_t row,
                float scale, element* dk, element* dv) {
  const int first = w.first_lane, count = w.j1 - w.j0 + 1;
  take_keys(w);
  own.add(group, row, count, w.dk + first, w.dv + first);
  listed.add(group, row, count, w.dk + first, w.dv + first);
  for (int n = first; n < first + count; ++n, dk += D, dv += DV) {
    for (int d = 0; d < D; ++d) dk[d] = narrow(w.dk[n][d] * scale);
    for (int d = 0; d < DV; ++d) dv[d] = narrow(w.dv[n][d]);
  }
}

void add_bias(const Work& w, const sparsec_backward_call& call, int64_t b, int64_t h, int64_t k_row) {
  if constexpr (Modifiers::KEYS) {
    if (!call.dbias) return;
    float* to = call.dbias + (b * HEADS + h) * call.n_k + k_row;
    for (int j = w.j0; j <= w.j1; ++j) to[j] += bias_at(w, w.first_lane + j - w.j0);
  }
}

void run_tile(Work& w, const sparsec_backward_call& call, const OwnGradients& own, const ColumnGradients& listed,
              const Rows& rows, const Sums& sums, int64_t b, int64_t g, const Tile& tile) {
  const Part& part = tile.part;
  w.j0 = maximum(tile.base, part.begin);
  w.j1 = minimum(tile.base + KEY_TILE, part.end) - 1;
  open_part(w, call, b, part);
  load_keys(w, matrix(call.k, call.k_stride, b, g, part.k_row), matrix(call.v, call.v_stride, b, g, part.k_row),
            tile.base, call.scale);
  for (int64_t h = g * (HEADS / KV_HEADS); h < (g + 1) * (HEADS / KV_HEADS) && w.begin < w.end; ++h) {
    open_head(w, call, rows, sums, b, h, part);
    start_bias(w);
    visit(w, call.lists, int(h));
    add_bias(w, call, b, h, part.k_row);
  }
  const int64_t group = b * KV_HEADS + g, row = w.j0 + part.k_row, first = group * call.n_k + row;
  if constexpr (Modifiers::KEYS)
    for (int64_t n = 0; call.dbias && n < HEADS / KV_HEADS; ++n)
      own.add_bias(group, row, w.j1 - w.j0 + 1, n, call.dbias + (group * (HEADS / KV_HEADS) + n) * call.n_k + row);
  store_keys(w, own, listed, group, row, call.scale, (element*)call.dk + first * D, (element*)call.dv + first * DV);
}

int backward(const sparsec_backward_call& call) {
  const Tiling<sparsec_backward_call> tiling(call, KEY_TILE, true);
  const OwnGradients gathered(call);
  const ColumnGradients listed(call);
  if (!tiling.before || !gathered.ready() || !listed.ready()) return 1;
  const int64_t heads = call.batch * HEADS, chunks = chunks_of(call), apart = heads * call.n_q * WIDE;
  const int64_t matrices = (OWN_SHARES + !IN_PLACE) * apart;
  const std::unique_ptr<float, decltype(&std::free)> scratch(
      static_cast<float*>(std::aligned_alloc(64, ((matrices + 2 * heads * call.n_q) / 16 + 1) * 64)), std::free);
  const std::unique_ptr<uint8_t[]> touched(new (std::nothrow) uint8_t[heads * chunks]());
  if (!scratch || !touched) return 1;
  float* const dq = IN_PLACE ? (float*)call.dq : scratch.get();
  float* const own = OWN_SHARES ? scratch.get() + !IN_PLACE * apart : nullptr;
  float *const lse = scratch.get() + matrices, *const delta = lse + heads * call.n_q;
  Shares shares(call, tiling.count(), dq, touched.get());
  if (!shares.ready()) return 1;
  int failed = 0;
#pragma omp parallel num_threads(shares.threads()) reduction(| : failed)
  {
    Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
    failed = w == nullptr;
    for (int n = 0; n < PANEL && w; ++n) w->lane[n / LANES][n % LANES] = n;
#pragma omp for
    for (int64_t task = 0; task < heads * chunks; ++task) {
      const int64_t head = task / chunks, first = task % chunks * CHUNK, row = head * call.n_q;
      prepare(call, head / HEADS, head % HEADS, first, std::min(first + CHUNK, call.n_q), lse + row, delta + row);
    }
    if constexpr (Modifiers::ROW_GRADIENTS) {
#pragma omp for
      for (int64_t h = 0; h < HEADS; ++h) Modifiers(call, 0, h, 0).of_rows(call, h, lse, delta);
    }
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < gathered.tasks; ++task) failed |= gathered.run(call, task, lse, delta, own);
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < shares.tasks(); ++task) {
      const Share share = shares[task];
      Sums* const sums = w ? shares.start(share) : shares.give_up();
      failed |= sums == nullptr;
      if (sums == nullptr) continue;
      const int64_t group = share.group;
      listed.run(*w, call, {lse, delta}, *sums, group, tiling, share.first, share.stop);
      for (int64_t n = share.first; n < share.stop; ++n)
        run_tile(*w, call, gathered, listed, {lse, delta}, *sums, group / KV_HEADS, group % KV_HEADS, tiling[n]);
      shares.finish(share, sums);
    }
#pragma omp for
    for (int64_t task = 0; task < heads * chunks; ++task) {
      const int64_t first = task / chunks * call.n_q + task % chunks * CHUNK;
      const int64_t stop = std::min(first + CHUNK, (task / chunks + 1) * call.n_q);
      store_dq(dq, touched[task], own, first, stop, call.scale, (element*)call.dq);
    }
    std::free(w);
  }
  return failed;
}
