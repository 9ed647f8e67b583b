...

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
  // Tile n of each loop, and the first one of a loop and those after it.
  const auto tile_5 = [&](int n) { return at1 + n; };
  const int first_5 = 0 < count4 ? tile_5(0) : -1;
  const auto tile_4 = [&](int n) { return at0 + n; };
  const int first_4 = 0 < count3 ? tile_4(0) : first_5;
  const auto tile_3 = [&](int n) { return full_to1 + n; };
  const int first_3 = 0 < count2 ? tile_3(0) : first_4;
  const auto tile_2 = [&](int n) { return full_to0 + n; };
  const int first_2 = 0 < count1 ? tile_2(0) : first_3;
  const auto tile_1 = [&](int n) { return full_from0 + n; };
  const int first_1 = 0 < count0 ? tile_1(0) : first_2;
  const auto tile_0 = [&](int n) { return n; };
  // line 4: sink(10) & line 3: causal
  for (int n = 0, count = full_to0; n < count; ++n) {
  ...
  for (int n = 0, count = count0; n < count; ++n) {
  ...
    expect(w, n + 1 < count ? tile_3(n + 1) : first_4);
    attend_masked(w, tile, live);
  }
  // line 4: window(4096) & line 3: causal
  for (int n = 0, count = count3; n < count; ++n) {
    const int tile = tile_4(n);
    expect(w, n + 1 < count ? tile_4(n + 1) : first_5);
    attend_masked(w, tile, live);
  }
  // line 4: window(4096) & line 3: causal
  for (int n = 0, count = count4; n < count; ++n) {
    const int tile = tile_5(n);
    expect(w, n + 1 < count ? tile_5(n + 1) : -1);
...
