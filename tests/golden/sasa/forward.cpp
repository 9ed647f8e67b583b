...

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
// line 4: near2d(width=56, rows=3, columns=3)
void visit_class_0(Work& w, [[maybe_unused]] const sparsec_list* lists, [[maybe_unused]] int head) {
  [[maybe_unused]] const int i0 = w.i0, i1 = w.i1, nk = w.n_k, begin = w.begin, end = w.end;
  const int lo0 = maximum(maximum(0, i0 - 171), floor_div(i0, 56) * 56 - 168);
  const int hi0 = maximum(minimum(minimum(nk, i1 - 164), floor_div(i1, 56) * 56 - 112), 0);
  const int from0 = minimum(maximum(maximum(0, ((i0 - 171) >> 6)), ((floor_div(i0, 56) * 56 - 168) >> 6)), (nk >> 6));
  const int to0 = maximum(from0, ((lo0 < hi0) ? maximum(minimum(minimum(((nk + 63) >> 6), ((i1 - 101) >> 6)), ((floor_div(i1, 56) * 56 - 49) >> 6)), 0) : minimum(maximum(maximum(0, ((i0 - 171) >> 6)), ((floor_div(i0, 56) * 56 - 168) >> 6)), (nk >> 6))));
  const int lo1 = maximum(maximum(0, i0 - 115), floor_div(i0, 56) * 56 - 112);
  const int hi1 = maximum(minimum(minimum(nk, i1 - 108), floor_div(i1, 56) * 56 - 56), 0);
  const int from1 = minimum(maximum(maximum(0, ((i0 - 115) >> 6)), ((floor_div(i0, 56) * 56 - 112) >> 6)), (nk >> 6));
  const int to1 = maximum(from1, ((lo1 < hi1) ? maximum(minimum(minimum(((nk + 63) >> 6), ((i1 - 45) >> 6)), ((floor_div(i1, 56) * 56 + 7) >> 6)), 0) : minimum(maximum(maximum(0, ((i0 - 115) >> 6)), ((floor_div(i0, 56) * 56 - 112) >> 6)), (nk >> 6))));
  const int lo2 = maximum(maximum(0, i0 - 59), floor_div(i0, 56) * 56 - 56);
  const int hi2 = maximum(minimum(minimum(nk, i1 - 52), floor_div(i1, 56) * 56), 0);
  const int from2 = minimum(maximum(maximum(0, ((i0 - 59) >> 6)), ((floor_div(i0, 56) * 56 - 56) >> 6)), (nk >> 6));
  const int to2 = maximum(from2, ((lo2 < hi2) ? maximum(minimum(minimum(((nk + 63) >> 6), ((i1 + 11) >> 6)), ((floor_div(i1, 56) * 56 + 63) >> 6)), 0) : minimum(maximum(maximum(0, ((i0 - 59) >> 6)), ((floor_div(i0, 56) * 56 - 56) >> 6)), (nk >> 6))));
  const int lo3 = maximum(maximum(0, i0 - 3), floor_div(i0, 56) * 56);
  const int hi3 = maximum(minimum(minimum(nk, i1 + 4), floor_div(i1, 56) * 56 + 56), 0);
  const int from3 = minimum(maximum(maximum(0, ((i0 - 3) >> 6)), (floor_div(i0, 56) * 56 >> 6)), (nk >> 6));
  const int to3 = maximum(from3, ((lo3 < hi3) ? maximum(minimum(minimum(((nk + 63) >> 6), ((i1 + 67) >> 6)), ((floor_div(i1, 56) * 56 + 119) >> 6)), 0) : minimum(maximum(maximum(0, ((i0 - 3) >> 6)), (floor_div(i0, 56) * 56 >> 6)), (nk >> 6))));
  const int lo4 = maximum(maximum(0, i0 + 53), floor_div(i0, 56) * 56 + 56);
  const int hi4 = maximum(minimum(minimum(nk, i1 + 60), floor_div(i1, 56) * 56 + 112), 0);
  const int from4 = minimum(maximum(maximum(0, ((i0 + 53) >> 6)), ((floor_div(i0, 56) * 56 + 56) >> 6)), (nk >> 6));
  const int to4 = maximum(from4, ((lo4 < hi4) ? maximum(minimum(minimum(((nk + 63) >> 6), ((i1 + 123) >> 6)), ((floor_div(i1, 56) * 56 + 175) >> 6)), 0) : minimum(maximum(maximum(0, ((i0 + 53) >> 6)), ((floor_div(i0, 56) * 56 + 56) >> 6)), (nk >> 6))));
  const int lo5 = maximum(maximum(0, i0 + 109), floor_div(i0, 56) * 56 + 112);
  const int hi5 = maximum(minimum(minimum(nk, i1 + 116), floor_div(i1, 56) * 56 + 168), 0);
  const int from5 = minimum(maximum(maximum(0, ((i0 + 109) >> 6)), ((floor_div(i0, 56) * 56 + 112) >> 6)), (nk >> 6));
  const int to5 = maximum(from5, ((lo5 < hi5) ? maximum(minimum(minimum(((nk + 63) >> 6), ((i1 + 179) >> 6)), ((floor_div(i1, 56) * 56 + 231) >> 6)), 0) : minimum(maximum(maximum(0, ((i0 + 109) >> 6)), ((floor_div(i0, 56) * 56 + 112) >> 6)), (nk >> 6))));
  const int lo6 = maximum(maximum(0, i0 + 165), floor_div(i0, 56) * 56 + 168);
  const int hi6 = maximum(minimum(minimum(nk, i1 + 172), floor_div(i1, 56) * 56 + 224), 0);
  const int from6 = minimum(maximum(maximum(0, ((i0 + 165) >> 6)), ((floor_div(i0, 56) * 56 + 168) >> 6)), (nk >> 6));
  const int to6 = maximum(from6, ((lo6 < hi6) ? maximum(minimum(minimum(((nk + 63) >> 6), ((i1 + 235) >> 6)), ((floor_div(i1, 56) * 56 + 287) >> 6)), 0) : minimum(maximum(maximum(0, ((i0 + 165) >> 6)), ((floor_div(i0, 56) * 56 + 168) >> 6)), (nk >> 6))));
  ...
  const int start1 = maximum(from2, stop1);
  const int stop2 = maximum(start1, to2);
  const int start2 = maximum(from3, stop2);
  const int stop3 = maximum(start2, to3);
  const int start3 = maximum(from4, stop3);
  const int stop4 = maximum(start3, to4);
  const int start4 = maximum(from5, stop4);
  const int stop5 = maximum(start4, to5);
  const int start5 = maximum(from6, stop5);
  const int stop6 = maximum(start5, to6);
  const int lo7 = maximum(maximum(0, i1 - 171), floor_div(i1, 56) * 56 - 168);
  const int hi7 = maximum(minimum(minimum(nk, i0 - 164), floor_div(i0, 56) * 56 - 112), 0);
  const int sure_hi0 = maximum(lo7, hi7);
  const int lo8 = maximum(maximum(0, i1 - 115), floor_div(i1, 56) * 56 - 112);
  const int hi8 = maximum(minimum(minimum(nk, i0 - 108), floor_div(i0, 56) * 56 - 56), 0);
  const int sure_hi1 = maximum(lo8, hi8);
  const int lo9 = maximum(maximum(0, i1 - 59), floor_div(i1, 56) * 56 - 56);
  const int hi9 = maximum(minimum(minimum(nk, i0 - 52), floor_div(i0, 56) * 56), 0);
  const int sure_hi2 = maximum(lo9, hi9);
  const int lo10 = maximum(maximum(0, i1 - 3), floor_div(i1, 56) * 56);
  const int hi10 = maximum(minimum(minimum(nk, i0 + 4), floor_div(i0, 56) * 56 + 56), 0);
  const int sure_hi3 = maximum(lo10, hi10);
  const int lo11 = maximum(maximum(0, i1 + 53), floor_div(i1, 56) * 56 + 56);
  const int hi11 = maximum(minimum(minimum(nk, i0 + 60), floor_div(i0, 56) * 56 + 112), 0);
  const int sure_hi4 = maximum(lo11, hi11);
  const int lo12 = maximum(maximum(0, i1 + 109), floor_div(i1, 56) * 56 + 112);
  const int hi12 = maximum(minimum(minimum(nk, i0 + 116), floor_div(i0, 56) * 56 + 168), 0);
  const int sure_hi5 = maximum(lo12, hi12);
  const int full_from0 = maximum(maximum(0, ((i1 - 108) >> 6)), ((floor_div(i1, 56) * 56 - 105) >> 6));
  const int full_to0 = maximum(full_from0, maximum(maximum(maximum(0, ((i1 - 171) >> 6)), ((floor_div(i1, 56) * 56 - 168) >> 6)), maximum(minimum(minimum((nk >> 6), ((i0 - 164) >> 6)), ((floor_div(i0, 56) * 56 - 112) >> 6)), 0)));
  const int run_lo0 = ((lo8 < sure_hi0 + 1) ? lo7 : lo8);
  const int run_hi0 = maximum(sure_hi0, sure_hi1);
  const int full_from1 = maximum(((((lo8 < sure_hi0 + 1) ? lo7 : lo8) + 63) >> 6), full_to0);
  const int full_to1 = maximum(full_from1, maximum(maximum(maximum(maximum(0, ((i1 - 171) >> 6)), ((floor_div(i1, 56) * 56 - 168) >> 6)), maximum(minimum(minimum((nk >> 6), ((i0 - 164) >> 6)), ((floor_div(i0, 56) * 56 - 112) >> 6)), 0)), maximum(maximum(maximum(0, ((i1 - 115) >> 6)), ((floor_div(i1, 56) * 56 - 112) >> 6)), maximum(minimum(minimum((nk >> 6), ((i0 - 108) >> 6)), ((floor_div(i0, 56) * 56 - 56) >> 6)), 0))));
  const int run_lo1 = ((lo9 < run_hi0 + 1) ? run_lo0 : lo9);
  const int run_hi1 = maximum(run_hi0, sure_hi2);
  const int full_from2 = maximum(((((lo9 < run_hi0 + 1) ? run_lo0 : lo9) + 63) >> 6), full_to1);
  const int full_to2 = maximum(full_from2, (run_hi1 >> 6));
  const int run_lo2 = ((lo10 < run_hi1 + 1) ? run_lo1 : lo10);
  const int run_hi2 = maximum(run_hi1, sure_hi3);
  const int full_from3 = maximum(((((lo10 < run_hi1 + 1) ? run_lo1 : lo10) + 63) >> 6), full_to2);
  const int full_to3 = maximum(full_from3, (run_hi2 >> 6));
  const int run_lo3 = ((lo11 < run_hi2 + 1) ? run_lo2 : lo11);
  const int run_hi3 = maximum(run_hi2, sure_hi4);
  const int full_from4 = maximum(((((lo11 < run_hi2 + 1) ? run_lo2 : lo11) + 63) >> 6), full_to3);
  const int full_to4 = maximum(full_from4, (run_hi3 >> 6));
  const int run_hi4 = maximum(run_hi3, sure_hi5);
  const int full_from5 = maximum(((((lo12 < run_hi3 + 1) ? run_lo3 : lo12) + 63) >> 6), full_to4);
  const int full_to5 = maximum(full_from5, (run_hi4 >> 6));
  const int count0 = maximum(full_to0 - full_from0, 0);
  const int count1 = maximum(full_to1 - full_from1, 0);
  const int count2 = maximum(full_to2 - full_from2, 0);
  const int count3 = maximum(full_to3 - full_from3, 0);
  const int count4 = maximum(full_to4 - full_from4, 0);
  const int count5 = maximum(full_to5 - full_from5, 0);
  const int count6 = maximum(minimum(stop0, full_from0) - from0, 0);
  const int at0 = maximum(from0, full_to0);
  const int count7 = maximum(minimum(stop0, full_from1) - at0, 0);
  const int at1 = maximum(from0, full_to1);
  const int count8 = maximum(minimum(stop0, full_from2) - at1, 0);
  const int at2 = maximum(from0, full_to2);
  const int count9 = maximum(minimum(stop0, full_from3) - at2, 0);
  const int at3 = maximum(from0, full_to3);
  const int count10 = maximum(minimum(stop0, full_from4) - at3, 0);
  const int at4 = maximum(from0, full_to4);
  const int count11 = maximum(minimum(stop0, full_from5) - at4, 0);
  const int at5 = maximum(from0, full_to5);
  const int count12 = maximum(stop0 - at5, 0);
  const int count13 = maximum(minimum(stop1, full_from0) - start0, 0);
  const int at6 = maximum(start0, full_to0);
  const int count14 = maximum(minimum(stop1, full_from1) - at6, 0);
  const int at7 = maximum(start0, full_to1);
  const int count15 = maximum(minimum(stop1, full_from2) - at7, 0);
  const int at8 = maximum(start0, full_to2);
  const int count16 = maximum(minimum(stop1, full_from3) - at8, 0);
  const int at9 = maximum(start0, full_to3);
  const int count17 = maximum(minimum(stop1, full_from4) - at9, 0);
  const int at10 = maximum(start0, full_to4);
  const int count18 = maximum(minimum(stop1, full_from5) - at10, 0);
  const int at11 = maximum(start0, full_to5);
  const int count19 = maximum(stop1 - at11, 0);
  const int count20 = maximum(minimum(stop2, full_from0) - start1, 0);
  const int at12 = maximum(start1, full_to0);
  const int count21 = maximum(minimum(stop2, full_from1) - at12, 0);
  const int at13 = maximum(start1, full_to1);
  const int count22 = maximum(minimum(stop2, full_from2) - at13, 0);
  const int at14 = maximum(start1, full_to2);
  const int count23 = maximum(minimum(stop2, full_from3) - at14, 0);
  const int at15 = maximum(start1, full_to3);
  const int count24 = maximum(minimum(stop2, full_from4) - at15, 0);
  const int at16 = maximum(start1, full_to4);
  const int count25 = maximum(minimum(stop2, full_from5) - at16, 0);
  const int at17 = maximum(start1, full_to5);
  const int count26 = maximum(stop2 - at17, 0);
  const int count27 = maximum(minimum(stop3, full_from0) - start2, 0);
  const int at18 = maximum(start2, full_to0);
  const int count28 = maximum(minimum(stop3, full_from1) - at18, 0);
  const int at19 = maximum(start2, full_to1);
  const int count29 = maximum(minimum(stop3, full_from2) - at19, 0);
  const int at20 = maximum(start2, full_to2);
  const int count30 = maximum(minimum(stop3, full_from3) - at20, 0);
  const int at21 = maximum(start2, full_to3);
  const int count31 = maximum(minimum(stop3, full_from4) - at21, 0);
  const int at22 = maximum(start2, full_to4);
  const int count32 = maximum(minimum(stop3, full_from5) - at22, 0);
  const int at23 = maximum(start2, full_to5);
  const int count33 = maximum(stop3 - at23, 0);
  const int count34 = maximum(minimum(stop4, full_from0) - start3, 0);
  const int at24 = maximum(start3, full_to0);
  const int count35 = maximum(minimum(stop4, full_from1) - at24, 0);
  const int at25 = maximum(start3, full_to1);
  const int count36 = maximum(minimum(stop4, full_from2) - at25, 0);
  const int at26 = maximum(start3, full_to2);
  const int count37 = maximum(minimum(stop4, full_from3) - at26, 0);
  const int at27 = maximum(start3, full_to3);
  const int count38 = maximum(minimum(stop4, full_from4) - at27, 0);
  const int at28 = maximum(start3, full_to4);
  const int count39 = maximum(minimum(stop4, full_from5) - at28, 0);
  const int at29 = maximum(start3, full_to5);
  const int count40 = maximum(stop4 - at29, 0);
  const int count41 = maximum(minimum(stop5, full_from0) - start4, 0);
  const int at30 = maximum(start4, full_to0);
  const int count42 = maximum(minimum(stop5, full_from1) - at30, 0);
  const int at31 = maximum(start4, full_to1);
  const int count43 = maximum(minimum(stop5, full_from2) - at31, 0);
  const int at32 = maximum(start4, full_to2);
  const int count44 = maximum(minimum(stop5, full_from3) - at32, 0);
  const int at33 = maximum(start4, full_to3);
  const int count45 = maximum(minimum(stop5, full_from4) - at33, 0);
  const int at34 = maximum(start4, full_to4);
  const int count46 = maximum(minimum(stop5, full_from5) - at34, 0);
  const int at35 = maximum(start4, full_to5);
  const int count47 = maximum(stop5 - at35, 0);
  const int count48 = maximum(minimum(stop6, full_from0) - start5, 0);
  const int at36 = maximum(start5, full_to0);
  const int count49 = maximum(minimum(stop6, full_from1) - at36, 0);
  const int at37 = maximum(start5, full_to1);
  const int count50 = maximum(minimum(stop6, full_from2) - at37, 0);
  const int at38 = maximum(start5, full_to2);
  const int count51 = maximum(minimum(stop6, full_from3) - at38, 0);
  const int at39 = maximum(start5, full_to3);
  const int count52 = maximum(minimum(stop6, full_from4) - at39, 0);
  const int at40 = maximum(start5, full_to4);
  const int count53 = maximum(minimum(stop6, full_from5) - at40, 0);
  const int at41 = maximum(start5, full_to5);
  const int count54 = maximum(stop6 - at41, 0);
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return ((((((((((i - 171 < j + 1) & (floor_div(i, 56) * 56 - 168 < j + 1)) & (j < i - 164)) & (j < floor_div(i, 56) * 56 - 112)) | ((((i - 115 < j + 1) & (floor_div(i, 56) * 56 - 112 < j + 1)) & (j < i - 108)) & (j < floor_div(i, 56) * 56 - 56))) | ((((i - 59 < j + 1) & (floor_div(i, 56) * 56 - 56 < j + 1)) & (j < i - 52)) & (j < floor_div(i, 56) * 56))) | ((((i - 3 < j + 1) & (floor_div(i, 56) * 56 < j + 1)) & (j < i + 4)) & (j < floor_div(i, 56) * 56 + 56))) | ((((i + 53 < j + 1) & (floor_div(i, 56) * 56 + 56 < j + 1)) & (j < i + 60)) & (j < floor_div(i, 56) * 56 + 112))) | ((((i + 109 < j + 1) & (floor_div(i, 56) * 56 + 112 < j + 1)) & (j < i + 116)) & (j < floor_div(i, 56) * 56 + 168))) | ((((i + 165 < j + 1) & (floor_div(i, 56) * 56 + 168 < j + 1)) & (j < i + 172)) & (j < floor_div(i, 56) * 56 + 224))); };
  ...
    const int tile = full_from2 + n;
    attend_full(w, tile);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count3; n < count; ++n) {
    const int tile = full_from3 + n;
    attend_full(w, tile);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count4; n < count; ++n) {
    const int tile = full_from4 + n;
    attend_full(w, tile);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count5; n < count; ++n) {
    const int tile = full_from5 + n;
    attend_full(w, tile);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count6; n < count; ++n) {
  ...
  for (int n = 0, count = count7; n < count; ++n) {
  ...
  for (int n = 0, count = count8; n < count; ++n) {
  ...
  for (int n = 0, count = count9; n < count; ++n) {
    const int tile = at2 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count10; n < count; ++n) {
    const int tile = at3 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count11; n < count; ++n) {
    const int tile = at4 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count12; n < count; ++n) {
    const int tile = at5 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count13; n < count; ++n) {
  ...
  for (int n = 0, count = count14; n < count; ++n) {
    const int tile = at6 + n;
  ...
  for (int n = 0, count = count15; n < count; ++n) {
    const int tile = at7 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count16; n < count; ++n) {
    const int tile = at8 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count17; n < count; ++n) {
    const int tile = at9 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count18; n < count; ++n) {
    const int tile = at10 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count19; n < count; ++n) {
    const int tile = at11 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count20; n < count; ++n) {
    const int tile = start1 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count21; n < count; ++n) {
    const int tile = at12 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count22; n < count; ++n) {
    const int tile = at13 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count23; n < count; ++n) {
    const int tile = at14 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count24; n < count; ++n) {
    const int tile = at15 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count25; n < count; ++n) {
    const int tile = at16 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count26; n < count; ++n) {
    const int tile = at17 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count27; n < count; ++n) {
    const int tile = start2 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count28; n < count; ++n) {
    const int tile = at18 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count29; n < count; ++n) {
    const int tile = at19 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count30; n < count; ++n) {
    const int tile = at20 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count31; n < count; ++n) {
    const int tile = at21 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count32; n < count; ++n) {
    const int tile = at22 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count33; n < count; ++n) {
    const int tile = at23 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count34; n < count; ++n) {
    const int tile = start3 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count35; n < count; ++n) {
    const int tile = at24 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count36; n < count; ++n) {
    const int tile = at25 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count37; n < count; ++n) {
    const int tile = at26 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count38; n < count; ++n) {
    const int tile = at27 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count39; n < count; ++n) {
    const int tile = at28 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count40; n < count; ++n) {
    const int tile = at29 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count41; n < count; ++n) {
    const int tile = start4 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count42; n < count; ++n) {
    const int tile = at30 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count43; n < count; ++n) {
    const int tile = at31 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count44; n < count; ++n) {
    const int tile = at32 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count45; n < count; ++n) {
    const int tile = at33 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count46; n < count; ++n) {
    const int tile = at34 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count47; n < count; ++n) {
    const int tile = at35 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count48; n < count; ++n) {
    const int tile = start5 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count49; n < count; ++n) {
    const int tile = at36 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count50; n < count; ++n) {
    const int tile = at37 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count51; n < count; ++n) {
    const int tile = at38 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count52; n < count; ++n) {
    const int tile = at39 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count53; n < count; ++n) {
    const int tile = at40 + n;
    attend_masked(w, tile, live);
  }
  // line 4: near2d(width=56, rows=3, columns=3)
  for (int n = 0, count = count54; n < count; ++n) {
    const int tile = at41 + n;
...
