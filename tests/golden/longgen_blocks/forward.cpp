...

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
// line 13: sink(1b) & line 12: causal
...
  const int hi0 = maximum(minimum(minimum(nk, 64), i1 + 1), 0);
  const int to0 = ((0 < hi0) ? maximum(minimum(minimum(((nk + 63) >> 6), 1), ((i1 + 64) >> 6)), 0) : 0);
  const int lo0 = maximum(0, (i0 >> 6) * 64 - 960);
  const int hi1 = maximum(minimum(nk, i1 + 1), 0);
  const int from0 = minimum(maximum(0, (i0 >> 6) - 15), (nk >> 6));
  const int to1 = maximum(from0, maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0));
  const int start0 = maximum(from0, to0);
  const int stop0 = maximum(start0, to1);
  const int hi2 = maximum(minimum(minimum(nk, 64), i0 + 1), 0);
  const int full_to0 = maximum(minimum(minimum((nk >> 6), 1), ((i0 + 1) >> 6)), 0);
  const int full_from0 = maximum(((((lo0 < hi2 + 1) ? 0 : lo0) + 63) >> 6), full_to0);
  const int full_to1 = maximum(full_from0, maximum(maximum(minimum(minimum((nk >> 6), 1), ((i0 + 1) >> 6)), 0), maximum(maximum(0, (i0 >> 6) - 15), maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0))));
  ...
  const int to2 = ((0 < hi1) ? maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0) : 0);
  const int full_to2 = maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0);
  const int until0 = minimum(to2, start0);
  const int until1 = minimum(until0, full_to2);
  const int until2 = maximum(until1, to0);
  const int skipped0 = ((to0 + 31) >> 4);
  const int count5 = ((until2 + 31) >> 4) - skipped0;
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return (((truth(j < 64) & (j < i + 1)) | (((i >> 6) * 64 - 960 < j + 1) & (j < i + 1))) | ((j < i + 1) & truth(((j >> 6) & 15) < 1))); };
  ...
    attend_full(w, tile);
  }
  // line 13: stride(16b) & line 12: causal
  for (int n = 0, count = count5; n < count; ++n) {
    const int tile = (n + skipped0) * 16 - 16;
...
