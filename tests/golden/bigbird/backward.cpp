...

// ---- Head classes: which query tiles the keys j0 .. j1 visit, in full or through a mask.
...
  [[maybe_unused]] const int j0 = w.j0, j1 = w.j1, nk = w.n_k, base = w.origin, begin = w.begin, end = w.end;
  ...
  static const int table0_of_head[HEADS] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  [[maybe_unused]] const int table0 = table0_of_head[head];
  const int from0 = ((j0 < minimum(j1, 63) + 1) ? minimum((begin >> 6), (end >> 6)) : 0);
  const int to0 = maximum(from0, ((j0 < minimum(j1, 63) + 1) ? ((begin < end) ? ((end + 63) >> 6) : minimum((begin >> 6), (end >> 6))) : 0));
  const int hi0 = maximum(minimum(end, 64 - base), 0);
  const int from1 = minimum((begin >> 6), (end >> 6));
  const int to1 = maximum(from1, ((begin < hi0) ? maximum(minimum(((end + 63) >> 6), ((64 - base + 63) >> 6)), 0) : minimum((begin >> 6), (end >> 6))));
  const int from2 = ((maximum(j0, ((nk + 63) >> 6) * 64 - 64) < j1 + 1) ? minimum((begin >> 6), (end >> 6)) : 0);
  const int to2 = maximum(from2, ((maximum(j0, ((nk + 63) >> 6) * 64 - 64) < j1 + 1) ? ((begin < end) ? ((end + 63) >> 6) : minimum((begin >> 6), (end >> 6))) : 0));
  const int lo0 = maximum(begin, ((nk + 63) >> 6) * 64 - 64 - base);
  const int from3 = minimum(maximum((begin >> 6), ((((nk + 63) >> 6) * 64 - 64 - base) >> 6)), (end >> 6));
  const int to3 = maximum(from3, ((lo0 < end) ? ((end + 63) >> 6) : minimum(maximum((begin >> 6), ((((nk + 63) >> 6) * 64 - 64 - base) >> 6)), (end >> 6))));
  const int lo1 = maximum(begin, (j0 >> 6) * 64 - 64 - base);
  const int hi1 = maximum(minimum(end, (j0 >> 6) * 64 + 128 - base), 0);
  const int from4 = minimum(maximum((begin >> 6), (((j0 >> 6) * 64 - 64 - base) >> 6)), (end >> 6));
  const int to4 = maximum(from4, ((lo1 < hi1) ? maximum(minimum(((end + 63) >> 6), (((j0 >> 6) * 64 + 128 - base + 63) >> 6)), 0) : minimum(maximum((begin >> 6), (((j0 >> 6) * 64 - 64 - base) >> 6)), (end >> 6))));
  const int low0 = minimum(from0, from4);
  const int low_end0 = ((from4 < from0) ? to4 : to0);
  const int high0 = maximum(from0, from4);
  const int high_end0 = ((from4 < from0) ? to0 : to4);
  const int low1 = minimum(low0, from2);
  const int low_end1 = ((from2 < low0) ? to2 : low_end0);
  const int high1 = maximum(low0, from2);
  const int high_end1 = ((from2 < low0) ? low_end0 : to2);
  const int low2 = minimum(from1, from3);
  const int low_end2 = ((from3 < from1) ? to3 : to1);
  const int high2 = maximum(from1, from3);
  const int high_end2 = ((from3 < from1) ? to1 : to3);
  ...
  const int sure_lo0 = ((j1 < 64) ? begin : 0);
  const int sure_hi0 = ((j1 < 64) ? maximum(begin, end) : 0);
  const int sure_hi1 = maximum(begin, hi0);
  const int sure_lo1 = ((((nk + 63) >> 6) * 64 - 64 < j0 + 1) ? begin : 0);
  const int sure_hi2 = ((((nk + 63) >> 6) * 64 - 64 < j0 + 1) ? maximum(begin, end) : 0);
  const int sure_hi3 = maximum(lo0, end);
  const int sure_hi4 = maximum(lo1, hi1);
  const int low9 = minimum(sure_lo0, lo1);
  const int low_end9 = ((lo1 < sure_lo0) ? sure_hi4 : sure_hi0);
  const int high9 = maximum(sure_lo0, lo1);
  const int high_end9 = ((lo1 < sure_lo0) ? sure_hi0 : sure_hi4);
  const int low10 = minimum(low9, sure_lo1);
  const int low_end10 = ((sure_lo1 < low9) ? sure_hi2 : low_end9);
  const int high10 = maximum(low9, sure_lo1);
  const int high_end10 = ((sure_lo1 < low9) ? low_end9 : sure_hi2);
  const int low11 = minimum(begin, lo0);
  const int low_end11 = ((lo0 < begin) ? sure_hi3 : sure_hi1);
  const int high11 = maximum(begin, lo0);
  const int high_end11 = ((lo0 < begin) ? sure_hi1 : sure_hi3);
  ...
  const int full_from0 = minimum(minimum(minimum(((((j1 < 64) ? begin : 0) + 63) >> 6), maximum(((begin + 63) >> 6), (((j0 >> 6) * 64 - 64 - base + 63) >> 6))), ((((((nk + 63) >> 6) * 64 - 64 < j0 + 1) ? begin : 0) + 63) >> 6)), minimum(((begin + 63) >> 6), maximum(((begin + 63) >> 6), ((((nk + 63) >> 6) * 64 - 64 - base + 63) >> 6))));
  const int full_to0 = maximum(full_from0, (low_end13 >> 6));
  const int run_lo0 = ((low16 < low_end13 + 1) ? low13 : low16);
  const int run_hi0 = maximum(low_end13, low_end16);
  const int full_from1 = maximum(((((low16 < low_end13 + 1) ? low13 : low16) + 63) >> 6), full_to0);
  const int full_to1 = maximum(full_from1, maximum((low_end13 >> 6), (low_end16 >> 6)));
  const int run_lo1 = ((high16 < run_hi0 + 1) ? run_lo0 : high16);
  const int run_hi1 = maximum(run_hi0, high_end16);
  const int full_from2 = maximum(((((high16 < run_hi0 + 1) ? run_lo0 : high16) + 63) >> 6), full_to1);
  const int full_to2 = maximum(full_from2, maximum(maximum((low_end13 >> 6), (low_end16 >> 6)), (high_end16 >> 6)));
  const int run_lo2 = ((low17 < run_hi1 + 1) ? run_lo1 : low17);
  const int run_hi2 = maximum(run_hi1, low_end17);
  const int full_from3 = maximum(((((low17 < run_hi1 + 1) ? run_lo1 : low17) + 63) >> 6), full_to2);
  const int full_to3 = maximum(full_from3, maximum(maximum(maximum((low_end13 >> 6), (low_end16 >> 6)), (high_end16 >> 6)), (low_end17 >> 6)));
  const int full_from4 = maximum(((((high17 < run_hi2 + 1) ? run_lo2 : high17) + 63) >> 6), full_to3);
  const int full_to4 = maximum(full_from4, maximum(maximum(maximum(maximum((low_end13 >> 6), (low_end16 >> 6)), (high_end16 >> 6)), (low_end17 >> 6)), (high_end17 >> 6)));
  const int count0 = maximum(full_to0 - full_from0, 0);
  const int count1 = maximum(full_to1 - full_from1, 0);
  const int count2 = maximum(full_to2 - full_from2, 0);
  const int count3 = maximum(full_to3 - full_from3, 0);
  const int count4 = maximum(full_to4 - full_from4, 0);
  const int count5 = maximum(minimum(stop0, full_from0) - low4, 0);
  const int at0 = maximum(low4, full_to0);
  const int count6 = maximum(minimum(stop0, full_from1) - at0, 0);
  const int at1 = maximum(low4, full_to1);
  const int count7 = maximum(minimum(stop0, full_from2) - at1, 0);
  const int at2 = maximum(low4, full_to2);
  const int count8 = maximum(minimum(stop0, full_from3) - at2, 0);
  const int at3 = maximum(low4, full_to3);
  const int count9 = maximum(minimum(stop0, full_from4) - at3, 0);
  const int at4 = maximum(low4, full_to4);
  const int count10 = maximum(stop0 - at4, 0);
  const int count11 = maximum(minimum(stop1, full_from0) - start0, 0);
  const int at5 = maximum(start0, full_to0);
  const int count12 = maximum(minimum(stop1, full_from1) - at5, 0);
  const int at6 = maximum(start0, full_to1);
  const int count13 = maximum(minimum(stop1, full_from2) - at6, 0);
  const int at7 = maximum(start0, full_to2);
  const int count14 = maximum(minimum(stop1, full_from3) - at7, 0);
  const int at8 = maximum(start0, full_to3);
  const int count15 = maximum(minimum(stop1, full_from4) - at8, 0);
  const int at9 = maximum(start0, full_to4);
  const int count16 = maximum(stop1 - at9, 0);
  const int count17 = maximum(minimum(stop2, full_from0) - start1, 0);
  const int at10 = maximum(start1, full_to0);
  const int count18 = maximum(minimum(stop2, full_from1) - at10, 0);
  const int at11 = maximum(start1, full_to1);
  const int count19 = maximum(minimum(stop2, full_from2) - at11, 0);
  const int at12 = maximum(start1, full_to2);
  const int count20 = maximum(minimum(stop2, full_from3) - at12, 0);
  const int at13 = maximum(start1, full_to3);
  const int count21 = maximum(minimum(stop2, full_from4) - at13, 0);
  const int at14 = maximum(start1, full_to4);
  const int count22 = maximum(stop2 - at14, 0);
  const int count23 = maximum(minimum(stop3, full_from0) - start2, 0);
  const int at15 = maximum(start2, full_to0);
  const int count24 = maximum(minimum(stop3, full_from1) - at15, 0);
  const int at16 = maximum(start2, full_to1);
  const int count25 = maximum(minimum(stop3, full_from2) - at16, 0);
  const int at17 = maximum(start2, full_to2);
  const int count26 = maximum(minimum(stop3, full_from3) - at17, 0);
  const int at18 = maximum(start2, full_to3);
  const int count27 = maximum(minimum(stop3, full_from4) - at18, 0);
  const int at19 = maximum(start2, full_to4);
  const int count28 = maximum(stop3 - at19, 0);
  const int count29 = maximum(minimum(stop4, full_from0) - start3, 0);
  const int at20 = maximum(start3, full_to0);
  const int count30 = maximum(minimum(stop4, full_from1) - at20, 0);
  const int at21 = maximum(start3, full_to1);
  const int count31 = maximum(minimum(stop4, full_from2) - at21, 0);
  const int at22 = maximum(start3, full_to2);
  const int count32 = maximum(minimum(stop4, full_from3) - at22, 0);
  const int at23 = maximum(start3, full_to3);
  const int count33 = maximum(minimum(stop4, full_from4) - at23, 0);
  const int at24 = maximum(start3, full_to4);
  const int count34 = maximum(stop4 - at24, 0);
  const int from5 = (begin >> 6);
  const int to5 = ((begin < end) ? ((end + 63) >> 6) : from5);
  bool listed_0 = false;  // of the tile at hand
  const auto live = [&]([[maybe_unused]] ivec j, [[maybe_unused]] int i) -> ivec { return ((((((j < 64) | truth(i < 64)) | (((nk + 63) >> 6) * 64 - 64 < j + 1)) | truth(((nk + 63) >> 6) * 64 - 64 < i + 1)) | (((j >> 6) * 64 - 64 < i + 1) & (i < (j >> 6) * 64 + 128))) | truth(listed_0)); };
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count0; n < count; ++n) {
    const int tile = full_from0 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_full(w, tile);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count1; n < count; ++n) {
    const int tile = full_from1 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_full(w, tile);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count2; n < count; ++n) {
    const int tile = full_from2 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_full(w, tile);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count3; n < count; ++n) {
    const int tile = full_from3 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_full(w, tile);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count4; n < count; ++n) {
    const int tile = full_from4 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_full(w, tile);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count5; n < count; ++n) {
    const int tile = low4 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count6; n < count; ++n) {
    const int tile = at0 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count7; n < count; ++n) {
    const int tile = at1 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count8; n < count; ++n) {
    const int tile = at2 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count9; n < count; ++n) {
    const int tile = at3 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count10; n < count; ++n) {
    const int tile = at4 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count11; n < count; ++n) {
    const int tile = start0 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count12; n < count; ++n) {
    const int tile = at5 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count13; n < count; ++n) {
    const int tile = at6 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count14; n < count; ++n) {
    const int tile = at7 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count15; n < count; ++n) {
    const int tile = at8 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count16; n < count; ++n) {
    const int tile = at9 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count17; n < count; ++n) {
    const int tile = start1 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count18; n < count; ++n) {
    const int tile = at10 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count19; n < count; ++n) {
    const int tile = at11 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count20; n < count; ++n) {
    const int tile = at12 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count21; n < count; ++n) {
    const int tile = at13 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count22; n < count; ++n) {
    const int tile = at14 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count23; n < count; ++n) {
    const int tile = start2 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count24; n < count; ++n) {
    const int tile = at15 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count25; n < count; ++n) {
    const int tile = at16 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count26; n < count; ++n) {
    const int tile = at17 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count27; n < count; ++n) {
    const int tile = at18 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count28; n < count; ++n) {
    const int tile = at19 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count29; n < count; ++n) {
    const int tile = start3 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count30; n < count; ++n) {
    const int tile = at20 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count31; n < count; ++n) {
    const int tile = at21 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count32; n < count; ++n) {
    const int tile = at22 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count33; n < count; ++n) {
    const int tile = at23 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: columns(-1b..) | line 5: rows(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count34; n < count; ++n) {
    const int tile = at24 + n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
  ...
  for (int n = 0, count = ((end + 63) >> 6); n < count; ++n) {
    const int tile = n;
    listed_0 = drawn(draws(lists[table0], row0, ((base + tile * 64) >> 6), 3), 3, (j0 >> 6));
    if (!(((((((((from5 < tile + 1) & (tile < to5)) & !((low4 < tile + 1) & (tile < stop0))) & !((start0 < tile + 1) & (tile < stop1))) & !((start1 < tile + 1) & (tile < stop2))) & !((start2 < tile + 1) & (tile < stop3))) & !((start3 < tile + 1) & (tile < stop4))) & listed_0))) continue;
...
