...

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
// line 5: global(1b)
// line 5: columns(-1b..)
// line 5: rows(-1b..)
...
  [[maybe_unused]] const int i0 = w.i0, i1 = w.i1, nk = w.n_k, begin = w.begin, end = w.end;
  static const int c0_of_head[HEADS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  [[maybe_unused]] const int c0 = c0_of_head[head];
  static const int row0_of_head[HEADS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  [[maybe_unused]] const int row0 = row0_of_head[head];
  const int hi0 = minimum(nk, 64);
  const int to0 = ((0 < hi0) ? minimum(((nk + 63) >> 6), 1) : 0);
  const int to1 = ((i0 < minimum(i1, 63) + 1) ? ((0 < nk) ? ((nk + 63) >> 6) : 0) : 0);
  const int to2 = ((maximum(i0, ((nk + 63) >> 6) * 64 - 64) < i1 + 1) ? ((0 < nk) ? ((nk + 63) >> 6) : 0) : 0);
  const int lo0 = maximum(0, ((nk + 63) >> 6) * 64 - 64);
  const int from0 = minimum(maximum(0, ((nk + 63) >> 6) - 1), (nk >> 6));
  const int to3 = maximum(from0, ((lo0 < nk) ? ((nk + 63) >> 6) : minimum(maximum(0, ((nk + 63) >> 6) - 1), (nk >> 6))));
  const int lo1 = maximum(0, (i0 >> 6) * 64 - 64);
  const int hi1 = maximum(minimum(nk, (i0 >> 6) * 64 + 128), 0);
  const int from1 = minimum(maximum(0, (i0 >> 6) - 1), (nk >> 6));
  const int to4 = maximum(from1, ((lo1 < hi1) ? maximum(minimum(((nk + 63) >> 6), (i0 >> 6) + 2), 0) : minimum(maximum(0, (i0 >> 6) - 1), (nk >> 6))));
  const int low0 = minimum(0, from1);
  const int low_end0 = ((from1 < 0) ? to4 : to0);
  const int high0 = maximum(0, from1);
  const int high_end0 = ((from1 < 0) ? to0 : to4);
  const int low1 = minimum(low0, 0);
  const int low_end1 = ((0 < low0) ? to2 : low_end0);
  const int high1 = maximum(low0, 0);
  const int high_end1 = ((0 < low0) ? low_end0 : to2);
  const int low2 = minimum(0, from0);
  const int low_end2 = ((from0 < 0) ? to3 : to1);
  const int high2 = maximum(0, from0);
  const int high_end2 = ((from0 < 0) ? to1 : to3);
  const int low3 = minimum(high1, high0);
  const int low_end3 = ((high0 < high1) ? high_end0 : high_end1);
  const int high3 = maximum(high1, high0);
  const int high_end3 = ((high0 < high1) ? high_end1 : high_end0);
  const int low4 = minimum(low1, low2);
  const int low_end4 = ((low2 < low1) ? low_end2 : low_end1);
  const int high4 = maximum(low1, low2);
  const int high_end4 = ((low2 < low1) ? low_end1 : low_end2);
  const int low5 = minimum(low3, high2);
  const int low_end5 = ((high2 < low3) ? high_end2 : low_end3);
  const int high5 = maximum(low3, high2);
  const int high_end5 = ((high2 < low3) ? low_end3 : high_end2);
  const int low6 = minimum(high4, high3);
  const int low_end6 = ((high3 < high4) ? high_end3 : high_end4);
  const int high6 = maximum(high4, high3);
  const int high_end6 = ((high3 < high4) ? high_end4 : high_end3);
  const int low7 = minimum(low6, low5);
  const int low_end7 = ((low5 < low6) ? low_end5 : low_end6);
  const int high7 = maximum(low6, low5);
  const int high_end7 = ((low5 < low6) ? low_end6 : low_end5);
  const int low8 = minimum(high5, high6);
  const int low_end8 = ((high6 < high5) ? high_end6 : high_end5);
  const int high8 = maximum(high5, high6);
  const int high_end8 = ((high6 < high5) ? high_end5 : high_end6);
  const int stop0 = maximum(low4, low_end4);
  const int start0 = maximum(low7, stop0);
  const int stop1 = maximum(start0, low_end7);
  const int start1 = maximum(high7, stop1);
  const int stop2 = maximum(start1, high_end7);
  const int start2 = maximum(low8, stop2);
  const int stop3 = maximum(start2, low_end8);
  const int start3 = maximum(high8, stop3);
  const int stop4 = maximum(start3, high_end8);
  const int sure_hi0 = ((i1 < 64) ? nk : 0);
  const int sure_hi1 = ((((nk + 63) >> 6) * 64 - 64 < i0 + 1) ? nk : 0);
  const int sure_hi2 = maximum(lo0, nk);
  const int sure_hi3 = maximum(lo1, hi1);
  const int low9 = minimum(0, lo1);
  const int low_end9 = ((lo1 < 0) ? sure_hi3 : hi0);
  const int high9 = maximum(0, lo1);
  const int high_end9 = ((lo1 < 0) ? hi0 : sure_hi3);
  const int low10 = minimum(low9, 0);
  const int low_end10 = ((0 < low9) ? sure_hi1 : low_end9);
  const int high10 = maximum(low9, 0);
  const int high_end10 = ((0 < low9) ? low_end9 : sure_hi1);
  const int low11 = minimum(0, lo0);
  const int low_end11 = ((lo0 < 0) ? sure_hi2 : sure_hi0);
  const int high11 = maximum(0, lo0);
  const int high_end11 = ((lo0 < 0) ? sure_hi0 : sure_hi2);
  const int low12 = minimum(high10, high9);
  const int low_end12 = ((high9 < high10) ? high_end9 : high_end10);
  const int high12 = maximum(high10, high9);
  const int high_end12 = ((high9 < high10) ? high_end10 : high_end9);
  const int low13 = minimum(low10, low11);
  const int low_end13 = ((low11 < low10) ? low_end11 : low_end10);
  const int high13 = maximum(low10, low11);
  const int high_end13 = ((low11 < low10) ? low_end10 : low_end11);
  const int low14 = minimum(low12, high11);
  const int low_end14 = ((high11 < low12) ? high_end11 : low_end12);
  const int high14 = maximum(low12, high11);
  const int high_end14 = ((high11 < low12) ? low_end12 : high_end11);
  const int low15 = minimum(high13, high12);
  const int low_end15 = ((high12 < high13) ? high_end12 : high_end13);
  const int high15 = maximum(high13, high12);
  const int high_end15 = ((high12 < high13) ? high_end13 : high_end12);
  const int low16 = minimum(low15, low14);
  const int low_end16 = ((low14 < low15) ? low_end14 : low_end15);
  const int high16 = maximum(low15, low14);
  const int high_end16 = ((low14 < low15) ? low_end15 : low_end14);
  const int low17 = minimum(high14, high15);
  const int low_end17 = ((high15 < high14) ? high_end15 : high_end14);
  const int high17 = maximum(high14, high15);
  const int high_end17 = ((high15 < high14) ? high_end14 : high_end15);
  const int full_to0 = (low_end13 >> 6);
  const int run_lo0 = ((low16 < low_end13 + 1) ? low13 : low16);
  const int run_hi0 = maximum(low_end13, low_end16);
  const int full_from0 = maximum(((((low16 < low_end13 + 1) ? low13 : low16) + 63) >> 6), full_to0);
  const int full_to1 = maximum(full_from0, maximum((low_end13 >> 6), (low_end16 >> 6)));
  const int run_lo1 = ((high16 < run_hi0 + 1) ? run_lo0 : high16);
  const int run_hi1 = maximum(run_hi0, high_end16);
  const int full_from1 = maximum(((((high16 < run_hi0 + 1) ? run_lo0 : high16) + 63) >> 6), full_to1);
  const int full_to2 = maximum(full_from1, maximum(maximum((low_end13 >> 6), (low_end16 >> 6)), (high_end16 >> 6)));
  const int run_lo2 = ((low17 < run_hi1 + 1) ? run_lo1 : low17);
  const int run_hi2 = maximum(run_hi1, low_end17);
  const int full_from2 = maximum(((((low17 < run_hi1 + 1) ? run_lo1 : low17) + 63) >> 6), full_to2);
  const int full_to3 = maximum(full_from2, maximum(maximum(maximum((low_end13 >> 6), (low_end16 >> 6)), (high_end16 >> 6)), (low_end17 >> 6)));
  const int full_from3 = maximum(((((high17 < run_hi2 + 1) ? run_lo2 : high17) + 63) >> 6), full_to3);
  const int full_to4 = maximum(full_from3, maximum(maximum(maximum(maximum((low_end13 >> 6), (low_end16 >> 6)), (high_end16 >> 6)), (low_end17 >> 6)), (high_end17 >> 6)));
  const int count0 = maximum(full_to1 - full_from0, 0);
  const int count1 = maximum(full_to2 - full_from1, 0);
  const int count2 = maximum(full_to3 - full_from2, 0);
  const int count3 = maximum(full_to4 - full_from3, 0);
  const int at0 = maximum(low4, full_to0);
  const int count4 = maximum(minimum(stop0, full_from0) - at0, 0);
  const int at1 = maximum(low4, full_to1);
  const int count5 = maximum(minimum(stop0, full_from1) - at1, 0);
  const int at2 = maximum(low4, full_to2);
  const int count6 = maximum(minimum(stop0, full_from2) - at2, 0);
  const int at3 = maximum(low4, full_to3);
  const int count7 = maximum(minimum(stop0, full_from3) - at3, 0);
  const int at4 = maximum(low4, full_to4);
  const int count8 = maximum(stop0 - at4, 0);
  const int at5 = maximum(start0, full_to0);
  const int count9 = maximum(minimum(stop1, full_from0) - at5, 0);
  const int at6 = maximum(start0, full_to1);
  const int count10 = maximum(minimum(stop1, full_from1) - at6, 0);
  const int at7 = maximum(start0, full_to2);
  const int count11 = maximum(minimum(stop1, full_from2) - at7, 0);
  const int at8 = maximum(start0, full_to3);
  const int count12 = maximum(minimum(stop1, full_from3) - at8, 0);
  const int at9 = maximum(start0, full_to4);
  const int count13 = maximum(stop1 - at9, 0);
  const int at10 = maximum(start1, full_to0);
  const int count14 = maximum(minimum(stop2, full_from0) - at10, 0);
  const int at11 = maximum(start1, full_to1);
  const int count15 = maximum(minimum(stop2, full_from1) - at11, 0);
  const int at12 = maximum(start1, full_to2);
  const int count16 = maximum(minimum(stop2, full_from2) - at12, 0);
  const int at13 = maximum(start1, full_to3);
  const int count17 = maximum(minimum(stop2, full_from3) - at13, 0);
  const int at14 = maximum(start1, full_to4);
  const int count18 = maximum(stop2 - at14, 0);
  const int at15 = maximum(start2, full_to0);
  const int count19 = maximum(minimum(stop3, full_from0) - at15, 0);
  const int at16 = maximum(start2, full_to1);
  const int count20 = maximum(minimum(stop3, full_from1) - at16, 0);
  const int at17 = maximum(start2, full_to2);
  const int count21 = maximum(minimum(stop3, full_from2) - at17, 0);
  const int at18 = maximum(start2, full_to3);
  const int count22 = maximum(minimum(stop3, full_from3) - at18, 0);
  const int at19 = maximum(start2, full_to4);
  const int count23 = maximum(stop3 - at19, 0);
  const int at20 = maximum(start3, full_to0);
  const int count24 = maximum(minimum(stop4, full_from0) - at20, 0);
  const int at21 = maximum(start3, full_to1);
  const int count25 = maximum(minimum(stop4, full_from1) - at21, 0);
  const int at22 = maximum(start3, full_to2);
  const int count26 = maximum(minimum(stop4, full_from2) - at22, 0);
  const int at23 = maximum(start3, full_to3);
  const int count27 = maximum(minimum(stop4, full_from3) - at23, 0);
  const int at24 = maximum(start3, full_to4);
  const int count28 = maximum(stop4 - at24, 0);
  const int to5 = ((0 < nk) ? ((nk + 63) >> 6) : 0);
  const int full_to5 = (nk >> 6);
  const int32_t* draws_0 = draws(lists[0], row0, (i0 >> 6), 3);
  bool listed_0 = false;  // of the tile at hand
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return (((((truth(j < 64) | (i < 64)) | truth(((nk + 63) >> 6) * 64 - 64 < j + 1)) | (((nk + 63) >> 6) * 64 - 64 < i + 1)) | (((i >> 6) * 64 - 64 < j + 1) & (j < (i >> 6) * 64 + 128))) | truth(listed_0)); };
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = full_to0; n < count; ++n) {
    const int tile = n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_full(w, tile);
  }
  ...
    listed_0 = drawn(draws_0, 3, tile);
  ...
    listed_0 = drawn(draws_0, 3, tile);
  ...
    const int tile = full_from2 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_full(w, tile);
  ...
    const int tile = full_from3 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_full(w, tile);
  }
  // line 6: random(3, seed=0, lane=0)
  for (int n = 0, count = 3; n < count; ++n) {
    const int entry = draws_0[n];
    const int tile = entry;
    listed_0 = drawn(draws_0, 3, tile);
    if (!((((-1 < entry) & (((((((0 < tile + 1) & (tile < to5)) & !((low4 < tile + 1) & (tile < stop0))) & !((start0 < tile + 1) & (tile < stop1))) & !((start1 < tile + 1) & (tile < stop2))) & !((start2 < tile + 1) & (tile < stop3))) & !((start3 < tile + 1) & (tile < stop4)))) & ((0 < tile + 1) & (tile < full_to5))))) continue;
    attend_full(w, tile);
  ...
    const int tile = at0 + n;
    listed_0 = drawn(draws_0, 3, tile);
  ...
    const int tile = at1 + n;
    listed_0 = drawn(draws_0, 3, tile);
  ...
    listed_0 = drawn(draws_0, 3, tile);
  ...
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count8; n < count; ++n) {
    const int tile = at4 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count9; n < count; ++n) {
    const int tile = at5 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count10; n < count; ++n) {
    const int tile = at6 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count11; n < count; ++n) {
    const int tile = at7 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count12; n < count; ++n) {
    const int tile = at8 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count13; n < count; ++n) {
    const int tile = at9 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count14; n < count; ++n) {
    const int tile = at10 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count15; n < count; ++n) {
    const int tile = at11 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count16; n < count; ++n) {
    const int tile = at12 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count17; n < count; ++n) {
    const int tile = at13 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count18; n < count; ++n) {
    const int tile = at14 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count19; n < count; ++n) {
    const int tile = at15 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count20; n < count; ++n) {
    const int tile = at16 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count21; n < count; ++n) {
    const int tile = at17 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count22; n < count; ++n) {
    const int tile = at18 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count23; n < count; ++n) {
    const int tile = at19 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count24; n < count; ++n) {
    const int tile = at20 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count25; n < count; ++n) {
    const int tile = at21 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count26; n < count; ++n) {
    const int tile = at22 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count27; n < count; ++n) {
    const int tile = at23 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 5: global(1b) | line 5: rows(-1b..) | line 5: columns(-1b..) | line 6: window(2b, ahead=1b)
  for (int n = 0, count = count28; n < count; ++n) {
    const int tile = at24 + n;
    listed_0 = drawn(draws_0, 3, tile);
    attend_masked(w, tile, live);
  }
  // line 6: random(3, seed=0, lane=0)
  for (int n = 0, count = 3; n < count; ++n) {
    const int entry = draws_0[n];
    const int tile = entry;
    listed_0 = drawn(draws_0, 3, tile);
    if (!((((-1 < entry) & (((((((0 < tile + 1) & (tile < to5)) & !((low4 < tile + 1) & (tile < stop0))) & !((start0 < tile + 1) & (tile < stop1))) & !((start1 < tile + 1) & (tile < stop2))) & !((start2 < tile + 1) & (tile < stop3))) & !((start3 < tile + 1) & (tile < stop4)))) & !((0 < tile + 1) & (tile < full_to5))))) continue;
...
