...

  static const int c0_of_head[HEADS] = {0, 0, 7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1};
  [[maybe_unused]] const int c0 = c0_of_head[head];
  const int hi0 = maximum(minimum(nk, i1 + 1), 0);
  const int from0 = minimum(maximum(0, (i0 >> 6) - 7), (nk >> 6));
  const int to0 = maximum(from0, maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0));
  const int stop0 = maximum(from0, to0);
  const int full_from0 = maximum(0, (i0 >> 6) - 7);
  const int full_to0 = maximum(full_from0, maximum(maximum(0, (i0 >> 6) - 7), maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0)));
  ...
  const int first_tile0 = (c0 & 7);
  const int count3 = ((until1 + 8 - first_tile0 + 7) >> 3) - 1;
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return ((((i >> 6) * 64 - 448 < j + 1) & (j < i + 1)) | ((j < i + 1) & truth((((j >> 6) - c0) & 7) < 1))); };
  ...
    const int tile = (n + 1) * 8 - 8 + first_tile0;
...
