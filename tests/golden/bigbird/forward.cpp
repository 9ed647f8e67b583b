... 578 lines, sha256 c10a44a1abb42244
...
  static const int row0_of_head[HEADS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
...
  const int hi0 = minimum(nk, 64);
  const int to0 = ((0 < hi0) ? minimum(((nk + 63) >> 6), 1) : 0);
  const int to1 = ((i0 < minimum(i1, 63) + 1) ? ((0 < nk) ? ((nk + 63) >> 6) : 0) : 0);
  const int to2 = ((maximum(i0, ((nk + 63) >> 6) * 64 - 64) < i1 + 1) ? ((0 < nk) ? ((nk + 63) >> 6) : 0) : 0);
  const int lo0 = maximum(0, ((nk + 63) >> 6) * 64 - 64);
  const int from0 = minimum(maximum(0, ((nk + 63) >> 6) - 1), (nk >> 6));
  const int to3 = maximum(from0, ((lo0 < nk) ? ((nk + 63) >> 6) : minimum(maximum(0, ((nk + 63) >> 6) - 1), (nk >> 6))));
...
  const int hi1 = maximum(minimum(nk, (i0 >> 6) * 64 + 128), 0);
...
  const int to4 = maximum(from1, ((lo1 < hi1) ? maximum(minimum(((nk + 63) >> 6), (i0 >> 6) + 2), 0) : minimum(maximum(0, (i0 >> 6) - 1), (nk >> 6))));
  const int low0 = minimum(0, from1);
  const int low_end0 = ((from1 < 0) ? to4 : to0);
  const int high0 = maximum(0, from1);
  const int high_end0 = ((from1 < 0) ? to0 : to4);
  const int low1 = minimum(low0, 0);
  const int low_end1 = ((0 < low0) ? to2 : low_end0);
  const int high1 = maximum(low0, 0);
  const int high_end1 = ((0 < low0) ? low_end0 : to2);
...
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
...
  const int stop0 = maximum(low4, low_end4);
  const int start0 = maximum(low7, stop0);
  const int stop1 = maximum(start0, low_end7);
  const int start1 = maximum(high7, stop1);
  const int stop2 = maximum(start1, high_end7);
...
  const int sure_hi0 = ((i1 < 64) ? nk : 0);
  const int sure_hi1 = ((((nk + 63) >> 6) * 64 - 64 < i0 + 1) ? nk : 0);
  const int sure_hi2 = maximum(lo0, nk);
...
  const int low9 = minimum(0, lo1);
  const int low_end9 = ((lo1 < 0) ? sure_hi3 : hi0);
  const int high9 = maximum(0, lo1);
  const int high_end9 = ((lo1 < 0) ? hi0 : sure_hi3);
...
  const int low_end10 = ((0 < low9) ? sure_hi1 : low_end9);
...
  const int high_end10 = ((0 < low9) ? low_end9 : sure_hi1);
...
  const int low_end11 = ((lo0 < 0) ? sure_hi2 : sure_hi0);
...
  const int high_end11 = ((lo0 < 0) ? sure_hi0 : sure_hi2);
...
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
...
  const int full_to4 = maximum(full_from3, maximum(maximum(maximum(maximum((low_end13 >> 6), (low_end16 >> 6)), (high_end16 >> 6)), (low_end17 >> 6)), (high_end17 >> 6)));
...
  const int at0 = maximum(low4, full_to0);
...
  const int to5 = ((0 < nk) ? ((nk + 63) >> 6) : 0);
  const int full_to5 = (nk >> 6);
...
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return (((((truth(j < 64) | (i < 64)) | truth(((nk + 63) >> 6) * 64 - 64 < j + 1)) | (((nk + 63) >> 6) * 64 - 64 < i + 1)) | (((i >> 6) * 64 - 64 < j + 1) & (j < (i >> 6) * 64 + 128))) | truth(listed_0)); };
...
    if (!((((-1 < entry) & (((((((0 < tile + 1) & (tile < to5)) & !((low4 < tile + 1) & (tile < stop0))) & !((start0 < tile + 1) & (tile < stop1))) & !((start1 < tile + 1) & (tile < stop2))) & !((start2 < tile + 1) & (tile < stop3))) & !((start3 < tile + 1) & (tile < stop4)))) & ((0 < tile + 1) & (tile < full_to5))))) continue;
...
    if (!((((-1 < entry) & (((((((0 < tile + 1) & (tile < to5)) & !((low4 < tile + 1) & (tile < stop0))) & !((start0 < tile + 1) & (tile < stop1))) & !((start1 < tile + 1) & (tile < stop2))) & !((start2 < tile + 1) & (tile < stop3))) & !((start3 < tile + 1) & (tile < stop4)))) & !((0 < tile + 1) & (tile < full_to5))))) continue;
...
