...

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
...
  [[maybe_unused]] const int i0 = w.i0, i1 = w.i1, nk = w.n_k, begin = w.begin, end = w.end;
  const int hi0 = maximum(minimum(minimum(nk, 10), i1 + 1), 0);
  const int to0 = ((0 < hi0) ? maximum(minimum(minimum(((nk + 63) >> 6), 1), ((i1 + 64) >> 6)), 0) : 0);
  const int lo0 = maximum(0, i0 - 4095);
  const int hi1 = maximum(minimum(nk, i1 + 1), 0);
  const int from0 = minimum(maximum(0, ((i0 - 4095) >> 6)), (nk >> 6));
  const int to1 = maximum(from0, ((lo0 < hi1) ? maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0) : minimum(maximum(0, ((i0 - 4095) >> 6)), (nk >> 6))));
  const int start0 = maximum(from0, to0);
  const int stop0 = maximum(start0, to1);
  const int hi2 = maximum(minimum(minimum(nk, 10), i0 + 1), 0);
  const int lo1 = maximum(0, i1 - 4095);
  const int full_to0 = maximum(minimum(0, ((i0 + 1) >> 6)), 0);
  const int full_from0 = maximum(((((lo1 < hi2 + 1) ? 0 : lo1) + 63) >> 6), full_to0);
  const int full_to1 = maximum(full_from0, maximum(maximum(minimum(0, ((i0 + 1) >> 6)), 0), maximum(maximum(0, ((i1 - 4095) >> 6)), maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0))));
  const int count0 = maximum(full_to1 - full_from0, 0);
  const int count1 = maximum(minimum(to0, full_from0) - full_to0, 0);
  const int count2 = maximum(to0 - full_to1, 0);
  const int at0 = maximum(start0, full_to0);
  const int count3 = maximum(minimum(stop0, full_from0) - at0, 0);
  const int at1 = maximum(start0, full_to1);
  const int count4 = maximum(stop0 - at1, 0);
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return (((i - 4095 < j + 1) & (j < i + 1)) | (truth(j < 10) & (j < i + 1))); };
  // line 4: sink(10) & line 3: causal
  for (int n = 0, count = full_to0; n < count; ++n) {
    const int tile = n;
    attend_full(w, tile);
  }
  ...
    const int tile = full_to0 + n;
    attend_masked(w, tile, live);
  ...
    const int tile = full_to1 + n;
  ... -15
}

...
