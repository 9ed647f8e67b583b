...

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
// line 5: window(513, ahead=512) & line 5: dilated(2)
...
  const int hi0 = minimum(nk, 1);
  const int to0 = ((0 < hi0) ? minimum(((nk + 63) >> 6), 1) : 0);
  const int to1 = ((i0 < minimum(i1, 0) + 1) ? ((0 < nk) ? ((nk + 63) >> 6) : 0) : 0);
  const int lo0 = maximum(0, i0 - 512);
  const int hi1 = maximum(minimum(nk, i1 + 513), 0);
  const int from0 = minimum(maximum(0, ((i0 - 512) >> 6)), (nk >> 6));
  const int to2 = maximum(from0, ((lo0 < hi1) ? maximum(minimum(((nk + 63) >> 6), ((i1 + 576) >> 6)), 0) : minimum(maximum(0, ((i0 - 512) >> 6)), (nk >> 6))));
  const int stop0 = maximum(to0, to1);
  const int start0 = maximum(from0, stop0);
  const int stop1 = maximum(start0, to2);
  const int sure_hi0 = ((i1 < 1) ? nk : 0);
  const int full_to0 = (sure_hi0 >> 6);
  const int count0 = maximum(to0 - full_to0, 0);
  const int at0 = maximum(to0, full_to0);
  const int count1 = maximum(stop0 - at0, 0);
  const int at1 = maximum(start0, full_to0);
  const int count2 = maximum(stop1 - at1, 0);
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return (((((i - 512 < j + 1) & (j < i + 513)) & (((j - i) & 1) < 1)) | truth(j < 1)) | (i < 1)); };
  ...
  // line 5: global(1)
  for (int n = 0, count = count1; n < count; ++n) {
    const int tile = at0 + n;
    attend_masked(w, tile, live);
  }
  // line 5: window(513, ahead=512) & line 5: dilated(2)
  for (int n = 0, count = count2; n < count; ++n) {
    const int tile = at1 + n;
    attend_masked(w, tile, live);
  }
}

... -1
// line 6: window(257, ahead=256)
// line 6: global(1)
void visit_class_1(Work& w, [[maybe_unused]] const sparsec_list* lists, [[maybe_unused]] int head) {
  [[maybe_unused]] const int i0 = w.i0, i1 = w.i1, nk = w.n_k, begin = w.begin, end = w.end;
  const int hi0 = minimum(nk, 1);
  const int to0 = ((0 < hi0) ? minimum(((nk + 63) >> 6), 1) : 0);
  const int to1 = ((i0 < minimum(i1, 0) + 1) ? ((0 < nk) ? ((nk + 63) >> 6) : 0) : 0);
  const int lo0 = maximum(0, i0 - 256);
  const int hi1 = maximum(minimum(nk, i1 + 257), 0);
  const int from0 = minimum(maximum(0, ((i0 - 256) >> 6)), (nk >> 6));
  const int to2 = maximum(from0, ((lo0 < hi1) ? maximum(minimum(((nk + 63) >> 6), ((i1 + 320) >> 6)), 0) : minimum(maximum(0, ((i0 - 256) >> 6)), (nk >> 6))));
  const int stop0 = maximum(to0, to1);
  const int start0 = maximum(from0, stop0);
  const int stop1 = maximum(start0, to2);
  const int sure_hi0 = ((i1 < 1) ? nk : 0);
  const int lo1 = maximum(0, i1 - 256);
  const int run_hi0 = maximum(hi0, sure_hi0);
  const int full_to0 = (sure_hi0 >> 6);
  const int full_from0 = maximum(((((lo1 < run_hi0 + 1) ? 0 : lo1) + 63) >> 6), full_to0);
  const int full_to1 = maximum(full_from0, maximum((sure_hi0 >> 6), maximum(maximum(0, ((i1 - 256) >> 6)), maximum(minimum((nk >> 6), ((i0 + 257) >> 6)), 0))));
  ...
  const int at0 = maximum(to0, full_to0);
  const int count3 = maximum(minimum(stop0, full_from0) - at0, 0);
  const int at1 = maximum(to0, full_to1);
  const int count4 = maximum(stop0 - at1, 0);
  const int at2 = maximum(start0, full_to0);
  const int count5 = maximum(minimum(stop1, full_from0) - at2, 0);
  const int at3 = maximum(start0, full_to1);
  const int count6 = maximum(stop1 - at3, 0);
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return ((((i - 256 < j + 1) & (j < i + 257)) | truth(j < 1)) | (i < 1)); };
  ...
  // line 6: window(257, ahead=256)
  for (int n = 0, count = count5; n < count; ++n) {
    const int tile = at2 + n;
    attend_masked(w, tile, live);
  }
  // line 6: window(257, ahead=256)
  for (int n = 0, count = count6; n < count; ++n) {
    const int tile = at3 + n;
    attend_masked(w, tile, live);
  }
}

void visit(Work& w, const sparsec_list* lists, int head) {
  static const int class_of_head[HEADS] = {0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  switch (class_of_head[head]) {
    case 0: visit_class_0(w, lists, head); break;
    case 1: visit_class_1(w, lists, head); break;
  }
}

...
