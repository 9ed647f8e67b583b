#pragma once
#include <algorithm>
#include <memory>
#include <new>

#include "../key_tiles.h"
#include "range.h"

// ---- Keys that an input lists for all queries: what they and the queries give each other, before the tiles.
constexpr int LISTED_WIDE = WIDE + DV;  // of a key and its value

struct Listed {  // what the keys of a range are taken from, and given to; rows are positions
  KeyRange range;
  Matrix k, v;
  float scale;
  float *sums, *dbias;  // no dbias: not asked for

  void load(Work& w, const int* at, int count) const {
    clear_keys(w, count);
    for (int n = 0; n < count; ++n) {
      load_rows<D>(k, at[n], 1, w.key[n], WIDE);
      load_rows<DV>(v, at[n], 1, w.value[n], row_of(DV));
    }
    lay_keys(w, 0, count, scale);
    start_bias(w);
  }
  void add(Work& w, const int* at, int count) const {
    take_keys(w);
    for (int n = 0; n < count; ++n) {
      float* to = sums + int64_t(at[n]) * LISTED_WIDE;
      for (int d = 0; d < WIDE; ++d) to[d] += w.dk[n][d];
      for (int d = 0; d < DV; ++d) to[WIDE + d] += w.dv[n][d];
      if (dbias) dbias[at[n]] += bias_at(w, n);
    }
  }
};

// Printed for the pattern: visits the tiles of queries that see some listed key.
void visit_columns(Work& w, const Listed& listed, const sparsec_list* lists, int head);

struct ColumnGradients {
  const int64_t keys;
  const std::unique_ptr<float[]> sums;  // of dk and dv, [groups, keys, LISTED_WIDE]

  explicit ColumnGradients(const sparsec_backward_call& call)
      : keys(call.n_k), sums(new (std::nothrow) float[call.batch * KV_HEADS * keys * LISTED_WIDE]) {}
  bool ready() const { return sums != nullptr; }
  float* of(int64_t group, int64_t row) const { return sums.get() + (group * keys + row) * LISTED_WIDE; }

  // The listed keys of key tiles first .. stop - 1 of a group.
  void run(Work& w, const sparsec_backward_call& call, const Rows& rows, const Sums& sums, int64_t group,
           const Tiling<sparsec_backward_call>& tiling, int64_t first, int64_t stop) const {
    const int64_t b = group / KV_HEADS, g = group % KV_HEADS;
    by_parts(tiling, first, stop, [&](const KeyRange& range) {
      const Part& part = range.part;
      std::fill(of(group, part.k_row + range.first), of(group, part.k_row + range.stop), 0.0f);
      open_part(w, call, b, part);
      Listed listed = {range,
                       matrix(call.k, call.k_stride, b, g, part.k_row),
                       matrix(call.v, call.v_stride, b, g, part.k_row),
                       call.scale,
                       of(group, part.k_row),
                       nullptr};
      for (int64_t h = g * (HEADS / KV_HEADS); h < (g + 1) * (HEADS / KV_HEADS) && w.begin < w.end; ++h) {
        open_head(w, call, rows, sums, b, h, part);
        if (Modifiers::KEYS && call.dbias) listed.dbias = call.dbias + (b * HEADS + h) * call.n_k + part.k_row;
        visit_columns(w, listed, call.lists, int(h));
      }
    });
  }

  // Adds what `count` keys from row `first` on have, to rows of dk and dv.
  void add(int64_t group, int64_t first, int count, float (*dk)[WIDE], float (*dv)[DV]) const {
    const float* from = of(group, first);
    for (int n = 0; n < count; ++n, from += LISTED_WIDE) {
      for (int d = 0; d < D; ++d) dk[n][d] += from[d];
      for (int d = 0; d < DV; ++d) dv[n][d] += from[WIDE + d];
    }
  }
};
