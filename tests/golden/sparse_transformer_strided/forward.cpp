...

... -2
  const int hi0 = maximum(minimum(nk, i1 + 1), 0);
  const int from0 = minimum(maximum(0, ((i0 - 127) >> 6)), (nk >> 6));
  const int to0 = maximum(from0, maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0));
  const int stop0 = maximum(from0, to0);
  const int full_from0 = maximum(0, ((i1 - 64) >> 6));
  const int full_to0 = maximum(full_from0, maximum(maximum(0, ((i1 - 127) >> 6)), maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0)));
  ...
  const int offset0 = (i0 & 127);
  const int width0 = i1 - i0 + 1;
  const int until0 = minimum(to1, from0);
  const int run0 = ((0 - (offset0 + (width0 - 1)) + 127) >> 7);
  const int count3 = ((0 < until0) ? maximum(((until0 * 64 - offset0 + 127) >> 7) - run0, 0) * 2 : 0);
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return (((i - 127 < j + 1) & (j < i + 1)) | ((j < i + 1) & (((j - i) & 127) < 1))); };
  ... -5
  // line 6: dilated(128) & line 5: causal
  for (int n = 0, count = count3; n < count; ++n) {
    const int tile = ((offset0 + (run0 + (n >> 1)) * 128) >> 6) + (n & 1);
    if (!((((maximum(tile * 64, 0) < offset0 + (run0 + (n >> 1)) * 128 + width0) & (offset0 + (run0 + (n >> 1)) * 128 < hi0)) & ((0 < tile + 1) & (tile < until0))))) continue;
    attend_masked(w, tile, live);
  }
}

...
