// Sparse attention over a cache: chunks of queries, and the storing of keys.
//
// Chunks are the forward kernel with two sources of keys: those before a sequence's length are at their slots in the
// cache, the others in the call's own tensors. One task is one query tile of one head of one sequence.
... -2
#include <type_traits>
#include <utility>

...

#ifndef SPARSEC_MARKS
#define SPARSEC_MARKS
struct sparsec_marks {  // what an input says of the keys of a call, [batch, heads, n]; batch and heads may be 1
  const uint8_t* data;
  int64_t stride[3];
  int64_t batch;
  int64_t heads;
... -3
};
#endif

#ifndef SPARSEC_KEPT
#define SPARSEC_KEPT
struct sparsec_kept {  // lists of kept keys
  void* keys;  // [rows, D]
  void* values;  // [rows, DV]
  int32_t* entries;  // [1 + words, rows]: positions, then marks
  int64_t rows;
  int64_t room;  // rows that lists may have: those after it may be read
  int32_t* lists;  // [B, G, 3]: base, capacity and count
  const sparsec_marks* marks;  // of each input of kind tokens
};
#endif

#ifndef SPARSEC_CACHED_CALL
#define SPARSEC_CACHED_CALL
struct sparsec_cached_call {  // strides in elements; q [B, H, N, D], k [B, G, N, D]; out, v: DV for D; lse [B, H, N]
  ...
  void* keys;  // the cache, [B, slots, D]
  void* values;  // likewise, [B, slots, DV]
  void* out;  // contiguous, and so are all that have no stride here
  ... -2
  int64_t batch;
  int64_t n;
  int64_t slots;
  int64_t longest;  // the most tokens of a sequence after the call: tables of draws end there
  int32_t* lengths;  // [B]: tokens in the cache
  const int32_t* counts;  // [B]: those among the call's n, which are the last; null: n each
  int64_t* state;  // [2, B], or null: once stored, tokens are counted here and in lengths
  const int32_t* places;  // [G, regions, 2]: base and capacity of a group's regions
  const sparsec_kept* kept;  // null for a cache without lists of kept keys
  float* mass;  // [B, H, mass_keys], to which the mass of keys is added; null: not asked for
  int64_t mass_keys;
  const uint8_t* mass_groups;  // [G], which groups get it; null: all
  ... -2

namespace sparsec_chunk {
namespace {

...
constexpr int REGIONS = 2;  // of a KV group in the table of places

...
... cpu/kernels/cache.h
...
... cpu/kernels/nothing.h
... cpu/kernels/cached_keys.h
...
... cpu/kernels/chunk.h

constexpr int ELEMENTS_A_THREAD = 32768;

... cpu/kernels/store.h
...
} MICRO_KERNEL = {"sparsec micro-kernel of attend_chunk", Products::NAME};

// ---- Slots of keys, for each class of heads.
void slots_of_keys_0(const int32_t* places, int member, int stop, const int* key, int count, int* slot) {
  static const int s0_of[] = {0, 0, 15, 15, 14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 9, 9};
  const int s0 = s0_of[member];
  const int base0 = base_of(places + 0), capacity0 = capacity_of(places + 0);
  const int base1 = base_of(places + 2), capacity1 = capacity_of(places + 2);
  for (int n = 0; n < count; ++n) {
    [[maybe_unused]] const int j = key[n];
    slot[n] = (((((j >> 6) - s0) & 15) < 1) ? (((((j >> 6) - s0) >> 4) * 64 + (j & 63) < capacity0) ? base0 + ((((j >> 6) - s0) >> 4) * 64 + (j & 63)) : -1) : base1 + j % capacity1);
  }
}

void slots_of_keys(const int32_t* places, int member, int stop, const int* key, int count, int* slot) {
  static const int class_of[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  switch (class_of[member]) {
    case 0: slots_of_keys_0(places, member, stop, key, count, slot); break;
  }
}

// ---- Slots of keys, for each class of groups.
void slots_to_keep_0(const int32_t* places, int member, int stop, const int* key, int count, int* slot) {
  static const int s0_of[] = {0, 15, 14, 13, 12, 11, 10, 9};
  ...
    slot[n] = (((((j >> 6) - s0) & 15) < 1) ? (((((j >> 6) - s0) >> 4) * 64 + (j & 63) < capacity0) ? base0 + ((((j >> 6) - s0) >> 4) * 64 + (j & 63)) : -1) : ((stop - capacity1 < j + 1) ? base1 + j % capacity1 : -1));
  }
}

void slots_to_keep(const int32_t* places, int member, int stop, const int* key, int count, int* slot) {
  static const int class_of[] = {0, 0, 0, 0, 0, 0, 0, 0};
  switch (class_of[member]) {
    case 0: slots_to_keep_0(places, member, stop, key, count, slot); break;
  }
}

... -8
  // line 9: window(16b) & line 7: causal
  for (int n = 0, count = count0; n < count; ++n) {
    const int tile = full_from0 + n;
  ...
    const int tile = (n + 1) * 16 - 16 + first_tile0;
  ...
    const int tile = from0 + n;
  ...
    const int tile = at0 + n;
...

}  // namespace
}  // namespace sparsec_chunk

// Each returns 0, 1 when memory ran out, or 2 for lengths or places that the call's tensors do not have.
extern "C" int sparsec_attend_chunk(const sparsec_cached_call* call) { return sparsec_chunk::attend_chunk(*call); }

extern "C" int sparsec_store(const sparsec_cached_call* call) { return sparsec_chunk::store(*call); }

// Sparse attention over a cache: single queries.
//
// Bound by the reading of keys. Query heads of one key head that see the same keys are a pack, and read them once; a
// key that no head sees is not read. The tiles of a row are dealt out in turn to a number of tasks that depends on
// lengths alone, whose sums are merged in order: the same bits whatever the number of threads. Lanes lie along the head
// dim.
...
#include <cmath>
...

namespace sparsec_rows {
namespace {

constexpr int HEADS = 16, KV_HEADS = 8, D = 128, DV = 128;
constexpr int QUERY_TILE = 1, KEY_TILE = 64;
constexpr int LANE_TILE = KEY_TILE;  // lies across vector lanes
constexpr int REGIONS = 2;  // of a KV group in the table of places

...
... cpu/kernels/dtypes/float32_rows.h
...
... cpu/kernels/pack.h

const Pack PACKS[] = {
    {0, 2, {0, 1}},
    {1, 2, {2, 3}},
    {2, 2, {4, 5}},
    {3, 2, {6, 7}},
    {4, 2, {8, 9}},
    {5, 2, {10, 11}},
    {6, 2, {12, 13}},
    {7, 2, {14, 15}},
};
constexpr int PACK_COUNT = sizeof PACKS / sizeof *PACKS;

constexpr int KEYS_A_TASK = 256, MOST_TASKS = 16, ROW_TASKS = 64;

... cpu/kernels/share_count.h
... cpu/kernels/cached_shares.h
...

constexpr int BYTES_AHEAD = 8192, BYTES_NEAR = 1024, BYTES_A_BLOCK = 4096, AT_ONCE = 1024;

... cpu/kernels/dot_products.h
... cpu/kernels/row_operands/floats.h
... cpu/kernels/row_operands/widened.h
...
... cpu/kernels/cached_rows.h
... cpu/kernels/waiting.h
... cpu/kernels/row.h
... cpu/kernels/row_attend.h
... cpu/kernels/row_tiles.h
... cpu/kernels/row_shares.h
... cpu/kernels/row_sums.h
... cpu/kernels/decode.h
...
} MICRO_KERNEL = {"sparsec micro-kernel of attend_rows", RowOperands::NAME};

...

  const int hi0 = maximum(minimum(nk, i0 + 1), 0);
  const int from0 = minimum(maximum(0, (i0 >> 6) - 15), (nk >> 6));
  const int to0 = maximum(from0, maximum(minimum(((nk + 63) >> 6), ((i0 + 64) >> 6)), 0));
  ...
  const int to1 = ((0 < hi0) ? maximum(minimum(((nk + 63) >> 6), ((i0 + 64) >> 6)), 0) : 0);
  ...
  const auto live = [&]([[maybe_unused]] ivec j, [[maybe_unused]] int i) -> ivec { return ((((i >> 6) * 64 - 960 < j + 1) & (j < i + 1)) | ((j < i + 1) & ((((j >> 6) - c0) & 15) < 1))); };
  // line 9: window(16b) & line 7: causal
  for (int count = count0, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
  ...
  for (int count = count3, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
  ...
  for (int count = count1, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
  ...
  for (int count = count2, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
...

}  // namespace
}  // namespace sparsec_rows

// Returns 0, 1 when memory ran out, or 2 for lengths or places that the call's tensors do not have.
extern "C" int sparsec_attend_rows(const sparsec_cached_call* call) { return sparsec_rows::attend_rows(*call); }
