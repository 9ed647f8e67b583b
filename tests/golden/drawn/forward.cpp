...
// Here: 4 query heads on 2 key heads, head dim 128, float32.
...

constexpr int HEADS = 4, KV_HEADS = 2, D = 128, DV = 128;
constexpr int QUERY_TILE = 64, KEY_TILE = 64;
constexpr int LANE_TILE = QUERY_TILE;  // lies across vector lanes

...
... cpu/kernels/draws.h
...

  static const int c0_of_head[HEADS] = {0, 1, 2, 3};
  [[maybe_unused]] const int c0 = c0_of_head[head];
  static const int row0_of_head[HEADS] = {0, 1, 2, 3};
  [[maybe_unused]] const int row0 = row0_of_head[head];
  const int lo0 = maximum(0, (i0 >> 6) * 64 - 64);
  const int hi0 = maximum(minimum(nk, i1 + 1), 0);
  const int from0 = minimum(maximum(0, (i0 >> 6) - 1), (nk >> 6));
  const int to0 = maximum(from0, ((lo0 < hi0) ? maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0) : minimum(maximum(0, (i0 >> 6) - 1), (nk >> 6))));
  const int stop0 = maximum(from0, to0);
  const int full_from0 = maximum(0, (i0 >> 6) - 1);
  const int full_to0 = maximum(full_from0, maximum(maximum(0, (i0 >> 6) - 1), maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0)));
  ...
  const int32_t* draws_0 = draws(lists[0], row0, (i0 >> 6), 2);
  bool listed_0 = false;  // of the tile at hand
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return ((((i >> 6) * 64 - 64 < j + 1) & (j < i + 1)) | ((j < i + 1) & truth(listed_0))); };
  ... -2
    expect(w, n + 1 < count ? tile_0(n + 1) : first_2);
    listed_0 = drawn(draws_0, 2, tile);
  ...
  for (int n = 0, count = 2; n < count; ++n) {
    const int entry = draws_0[n];
    const int tile = entry;
    listed_0 = drawn(draws_0, 2, tile);
    if (!((((-1 < entry) & (((0 < tile + 1) & (tile < to1)) & !((from0 < tile + 1) & (tile < stop0)))) & ((0 < tile + 1) & (tile < full_to1))))) continue;
  ...
    listed_0 = drawn(draws_0, 2, tile);
  ...
    listed_0 = drawn(draws_0, 2, tile);
    attend_masked(w, tile, live);
  }
  // line 6: random(2, seed=0, lane=0) & line 5: causal
  for (int n = 0, count = 2; n < count; ++n) {
    const int entry = draws_0[n];
    const int tile = entry;
    listed_0 = drawn(draws_0, 2, tile);
    if (!((((-1 < entry) & (((0 < tile + 1) & (tile < to1)) & !((from0 < tile + 1) & (tile < stop0)))) & !((0 < tile + 1) & (tile < full_to1))))) continue;
...

void visit(Work& w, const sparsec_list* lists, int head) {
  static const int class_of_head[HEADS] = {0, 0, 0, 0};
...
