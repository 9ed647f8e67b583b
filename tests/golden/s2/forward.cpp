// Sparse attention, forward.
//
// One task is one query tile of one head: transpose q once, visit the key tiles of the head's class in the order below,
// keep a running maximum and sum (soft-max in base 2), divide at the end. Vector lanes are queries everywhere.
//
// Here: 16 query heads on 8 key heads, head dim 128, float32.
// Build: c++ -std=c++17 -O3 -march=native -fopenmp -shared -fPIC, without -ffast-math (infinities carry meaning).
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#ifndef SPARSEC_LIST
#define SPARSEC_LIST
struct sparsec_list {  // a table of draws, int32 [rows, blocks, width]
  const int32_t* entries;
  int64_t first;  // its first query block
  int64_t blocks;
};
#endif

#ifndef SPARSEC_LOOKUP
#define SPARSEC_LOOKUP
struct sparsec_lookup {  // what an input says, contiguous [batch, heads, rows, columns]; batch and heads may be 1
  const void* data;  // int32, or int64 of lists, or uint8 of cells and ancestors
  int64_t batch;
  int64_t heads;
  int64_t rows;
  int64_t columns;
  int64_t first;  // of prefix counts, the first number; of lists, whether they are int64
};
#endif

#ifndef SPARSEC_CALL
#define SPARSEC_CALL
struct sparsec_call {  // strides in elements; q [B, H, Nq, D], k [B, G, Nk, D]; out, v: DV for D; lse [B, H, Nq]
  const void* q;
  const void* k;
  const void* v;
  void* out;
  float* lse;
  int64_t q_stride[4];
  int64_t k_stride[4];
  int64_t v_stride[4];
  int64_t out_stride[4];
  int64_t lse_stride[3];
  int64_t batch;
  int64_t n_q;
  int64_t n_k;
  int64_t q0;  // the position of the first query
  const sparsec_list* lists;
  const sparsec_lookup* inputs;  // two for each test of an input
  const float* sink;  // [H], for a learned sink
  const float* key_bias;  // [b, x, keys], for a key bias; of b = 1 the stride is 0
  int64_t bias_heads;
  int64_t bias_keys;
  int64_t bias_stride[3];
  const int32_t* cu_seqlens;  // [documents + 1], for documents
  int64_t documents;
  float scale;
  int32_t threads;
};
#endif

namespace sparsec_kernel {
namespace {

... cpu/kernels/gathers/no_forward.h
... cpu/kernels/inputs/none.h

constexpr int HEADS = 16, KV_HEADS = 8, D = 128, DV = 128;
constexpr int QUERY_TILE = 64, KEY_TILE = 64;
constexpr int LANE_TILE = QUERY_TILE;  // lies across vector lanes

... cpu/kernels/dtypes/float32.h

typedef Float32 Element;  // of q and the output
typedef Float32 Stored;  // of k and v

... cpu/kernels/vectors.h
... cpu/kernels/operands/floats.h
... cpu/kernels/operands/widened.h
... cpu/kernels/elements.h
... cpu/kernels/call_keys.h
... cpu/kernels/ahead.h
... cpu/kernels/micro_kernels.h
... cpu/kernels/modifiers/unchanged.h

typedef Unchanged Modifiers;

... cpu/kernels/keys_at_hand.h
... cpu/kernels/matrix_tiles/none.h
... cpu/kernels/softmax.h
... cpu/kernels/tiles.h
... cpu/kernels/transpose.h
... cpu/kernels/panels.h
... cpu/kernels/documents/part.h
... cpu/kernels/documents/none.h
... cpu/kernels/parts.h
... cpu/kernels/forward.h

// In the library, for its manifest.
__attribute__((used)) const struct {
  char entry[48];
  Name name;
} MICRO_KERNEL = {"sparsec micro-kernel of forward", Products::NAME};

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
// line 9: window(16b) & line 7: causal
// line 9: stride(16b) & line 7: causal
void visit_class_0(Work& w, [[maybe_unused]] const sparsec_list* lists, [[maybe_unused]] int head) {
  [[maybe_unused]] const int i0 = w.i0, i1 = w.i1, nk = w.n_k, begin = w.begin, end = w.end;
  static const int c0_of_head[HEADS] = {0, 0, 15, 15, 14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 9, 9};
  [[maybe_unused]] const int c0 = c0_of_head[head];
  const int hi0 = maximum(minimum(nk, i1 + 1), 0);
  const int from0 = minimum(maximum(0, (i0 >> 6) - 15), (nk >> 6));
  const int to0 = maximum(from0, maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0));
  const int stop0 = maximum(from0, to0);
  const int full_from0 = maximum(0, (i0 >> 6) - 15);
  const int full_to0 = maximum(full_from0, maximum(maximum(0, (i0 >> 6) - 15), maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0)));
  const int count0 = maximum(full_to0 - full_from0, 0);
  const int count1 = maximum(minimum(stop0, full_from0) - from0, 0);
  const int at0 = maximum(from0, full_to0);
  const int count2 = maximum(stop0 - at0, 0);
  const int to1 = ((0 < hi0) ? maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0) : 0);
  const int full_to1 = maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0);
  const int until0 = minimum(to1, from0);
  const int until1 = minimum(until0, full_to1);
  const int first_tile0 = (c0 & 15);
  const int count3 = ((until1 + 16 - first_tile0 + 15) >> 4) - 1;
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return ((((i >> 6) * 64 - 960 < j + 1) & (j < i + 1)) | ((j < i + 1) & truth((((j >> 6) - c0) & 15) < 1))); };
  // Tile n of each loop, and the first one of a loop and those after it.
  const auto tile_3 = [&](int n) { return at0 + n; };
  const int first_3 = 0 < count2 ? tile_3(0) : -1;
  const auto tile_2 = [&](int n) { return from0 + n; };
  const int first_2 = 0 < count1 ? tile_2(0) : first_3;
  const auto tile_1 = [&](int n) { return (n + 1) * 16 - 16 + first_tile0; };
  const int first_1 = 0 < count3 ? tile_1(0) : first_2;
  const auto tile_0 = [&](int n) { return full_from0 + n; };
  // line 9: window(16b) & line 7: causal
  for (int n = 0, count = count0; n < count; ++n) {
    const int tile = tile_0(n);
    expect(w, n + 1 < count ? tile_0(n + 1) : first_1);
    attend_full(w, tile);
  }
  // line 9: stride(16b) & line 7: causal
  for (int n = 0, count = count3; n < count; ++n) {
    const int tile = tile_1(n);
    expect(w, n + 1 < count ? tile_1(n + 1) : first_2);
    attend_full(w, tile);
  }
  // line 9: window(16b) & line 7: causal
  for (int n = 0, count = count1; n < count; ++n) {
    const int tile = tile_2(n);
    expect(w, n + 1 < count ? tile_2(n + 1) : first_3);
    attend_masked(w, tile, live);
  }
  // line 9: window(16b) & line 7: causal
  for (int n = 0, count = count2; n < count; ++n) {
    const int tile = tile_3(n);
    expect(w, n + 1 < count ? tile_3(n + 1) : -1);
    attend_masked(w, tile, live);
  }
}

void visit(Work& w, const sparsec_list* lists, int head) {
  static const int class_of_head[HEADS] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  switch (class_of_head[head]) {
    case 0: visit_class_0(w, lists, head); break;
  }
}

}  // namespace
}  // namespace sparsec_kernel

// Returns 0, or 1 when memory ran out.
extern "C" int sparsec_forward(const sparsec_call* call) { return sparsec_kernel::forward(*call); }
