...

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
// line 5: sink(1024) & line 4: causal
...
  const int hi0 = maximum(minimum(minimum(nk, 1024), i1 + 1), 0);
  const int to0 = ((0 < hi0) ? maximum(minimum(minimum(((nk + 63) >> 6), 16), ((i1 + 64) >> 6)), 0) : 0);
  const int hi1 = maximum(minimum(nk, i1 + 1), 0);
  const int to1 = ((maximum(i0, nk - 100) < i1 + 1) ? ((0 < hi1) ? maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0) : 0) : 0);
  const int lo0 = maximum(0, i0 - 4095);
... -1
  const int from0 = minimum(maximum(0, ((i0 - 4095) >> 6)), (nk >> 6));
  const int to2 = maximum(from0, ((lo0 < hi1) ? maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0) : minimum(maximum(0, ((i0 - 4095) >> 6)), (nk >> 6))));
  const int stop0 = maximum(to0, to1);
  const int start0 = maximum(from0, stop0);
  const int stop1 = maximum(start0, to2);
  const int hi2 = maximum(minimum(minimum(nk, 1024), i0 + 1), 0);
  const int hi3 = maximum(minimum(nk, i0 + 1), 0);
  const int sure_hi0 = ((nk - 100 < i0 + 1) ? hi3 : 0);
  const int lo1 = maximum(0, i1 - 4095);
  const int full_to0 = maximum(minimum(minimum((nk >> 6), 16), ((i0 + 1) >> 6)), 0);
  const int run_hi0 = maximum(hi2, sure_hi0);
  const int full_to1 = maximum(full_to0, maximum(maximum(minimum(minimum((nk >> 6), 16), ((i0 + 1) >> 6)), 0), (sure_hi0 >> 6)));
  const int full_from0 = maximum(((((lo1 < run_hi0 + 1) ? 0 : lo1) + 63) >> 6), full_to1);
  const int full_to2 = maximum(full_from0, maximum(maximum(maximum(minimum(minimum((nk >> 6), 16), ((i0 + 1) >> 6)), 0), (sure_hi0 >> 6)), maximum(maximum(0, ((i1 - 4095) >> 6)), maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0))));
  const int count0 = maximum(full_to1 - full_to0, 0);
  const int count1 = maximum(full_to2 - full_from0, 0);
  const int count2 = maximum(minimum(to0, full_to0) - full_to0, 0);
  const int count3 = maximum(minimum(to0, full_from0) - full_to1, 0);
  const int count4 = maximum(to0 - full_to2, 0);
  const int at0 = maximum(to0, full_to0);
  const int count5 = maximum(minimum(stop0, full_to0) - at0, 0);
  const int at1 = maximum(to0, full_to1);
  const int count6 = maximum(minimum(stop0, full_from0) - at1, 0);
  const int at2 = maximum(to0, full_to2);
  const int count7 = maximum(stop0 - at2, 0);
  const int at3 = maximum(start0, full_to0);
  const int count8 = maximum(minimum(stop1, full_to0) - at3, 0);
  const int at4 = maximum(start0, full_to1);
  const int count9 = maximum(minimum(stop1, full_from0) - at4, 0);
  const int at5 = maximum(start0, full_to2);
  const int count10 = maximum(stop1 - at5, 0);
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return (((truth(j < 1024) & (j < i + 1)) | ((i - 4095 < j + 1) & (j < i + 1))) | ((j < i + 1) & (nk - 100 < i + 1))); };
  ...
    const int tile = full_to0 + n;
    attend_full(w, tile);
  }
  // line 5: window(4096) & line 4: causal
  for (int n = 0, count = count1; n < count; ++n) {
  ...
  for (int n = 0, count = count2; n < count; ++n) {
  ...
  for (int n = 0, count = count3; n < count; ++n) {
  ...
  for (int n = 0, count = count4; n < count; ++n) {
    const int tile = full_to2 + n;
    attend_masked(w, tile, live);
  }
  // line 5: rows(-100..) & line 4: causal
  for (int n = 0, count = count5; n < count; ++n) {
  ...
  for (int n = 0, count = count6; n < count; ++n) {
  ...
  // line 5: rows(-100..) & line 4: causal
  for (int n = 0, count = count7; n < count; ++n) {
    const int tile = at2 + n;
    attend_masked(w, tile, live);
  }
  // line 5: window(4096) & line 4: causal
  for (int n = 0, count = count8; n < count; ++n) {
    const int tile = at3 + n;
    attend_masked(w, tile, live);
  }
  // line 5: window(4096) & line 4: causal
  for (int n = 0, count = count9; n < count; ++n) {
    const int tile = at4 + n;
    attend_masked(w, tile, live);
  }
  // line 5: window(4096) & line 4: causal
  for (int n = 0, count = count10; n < count; ++n) {
    const int tile = at5 + n;
    attend_masked(w, tile, live);
  }
}

...
