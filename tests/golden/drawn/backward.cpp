...
// Here: 4 query heads on 2 key heads, head dim 128, float32.
...

constexpr int HEADS = 4, KV_HEADS = 2, D = 128, DV = 128;
constexpr int QUERY_TILE = 64, KEY_TILE = 64;
constexpr int LANE_TILE = KEY_TILE;  // lies across vector lanes

...

// ---- Head classes: which query tiles the keys j0 .. j1 visit, in full or through a mask.
...
  [[maybe_unused]] const int j0 = w.j0, j1 = w.j1, nk = w.n_k, base = w.origin, begin = w.begin, end = w.end;
  ...
  static const int table0_of_head[HEADS] = {0, 0, 0, 0};
  [[maybe_unused]] const int table0 = table0_of_head[head];
  const int lo0 = maximum(begin, j0 - base);
  const int hi0 = maximum(minimum(end, (j0 >> 6) * 64 + 128 - base), 0);
  const int from0 = minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6));
  const int to0 = maximum(from0, ((lo0 < hi0) ? maximum(minimum(((end + 63) >> 6), (((j0 >> 6) * 64 + 128 - base + 63) >> 6)), 0) : minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6))));
  const int stop0 = maximum(from0, to0);
  const int full_from0 = maximum(((begin + 63) >> 6), ((j1 - base + 63) >> 6));
  const int full_to0 = maximum(full_from0, maximum(maximum((begin >> 6), ((j1 - base) >> 6)), maximum(minimum((end >> 6), (((j0 >> 6) * 64 + 128 - base) >> 6)), 0)));
  ...
  const int from1 = maximum((begin >> 6), ((j0 - base) >> 6));
  const int to1 = ((lo0 < end) ? ((end + 63) >> 6) : from1);
  bool listed_0 = false;  // of the tile at hand
  const auto live = [&]([[maybe_unused]] ivec j, [[maybe_unused]] int i) -> ivec { return (((j < i + 1) & (i < (j >> 6) * 64 + 128)) | ((j < i + 1) & truth(listed_0))); };
  ...
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 2), 2, (j0 >> 6));
  ...
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 2), 2, (j0 >> 6));
  ...
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 2), 2, (j0 >> 6));
  ...
  for (int n = 0, count = ((end + 63) >> 6); n < count; ++n) {
    const int tile = n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 2), 2, (j0 >> 6));
    if (!(((((from1 < tile + 1) & (tile < to1)) & !((from0 < tile + 1) & (tile < stop0))) & listed_0))) continue;
...
