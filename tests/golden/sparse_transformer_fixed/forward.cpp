...

constexpr int HEADS = 16, KV_HEADS = 8, D = 128, DV = 128;
constexpr int QUERY_TILE = 64, KEY_TILE = 16;
constexpr int LANE_TILE = QUERY_TILE;  // lies across vector lanes

...

... -2
  const int hi0 = maximum(minimum(nk, i1 + 1), 0);
  const int from0 = minimum(maximum(0, (i0 >> 7) * 8), (nk >> 4));
  const int to0 = maximum(from0, maximum(minimum(((nk + 15) >> 4), ((i1 + 16) >> 4)), 0));
  const int stop0 = maximum(from0, to0);
  const int full_from0 = maximum(0, (i0 >> 7) * 8);
  const int full_to0 = maximum(full_from0, maximum(maximum(0, (i0 >> 7) * 8), maximum(minimum((nk >> 4), ((i0 + 1) >> 4)), 0)));
  ...
  const int to1 = ((0 < hi0) ? maximum(minimum(((nk + 15) >> 4), ((i1 + 16) >> 4)), 0) : 0);
  const int full_to1 = maximum(minimum((nk >> 4), ((i0 + 1) >> 4)), 0);
  const int until0 = minimum(to1, from0);
  const int until1 = minimum(until0, full_to1);
  const int count3 = ((until1 + 8) >> 3) - 1;
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return ((((i >> 7) * 128 < j + 1) & (j < i + 1)) | ((j < i + 1) & truth((((j >> 4) - 7) & 7) < 1))); };
  ...
    const int tile = (n + 1) * 8 - 1;
...
