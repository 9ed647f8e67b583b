...

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
// line 4: window(4096) & line 3: causal
void visit_class_0(Work& w, [[maybe_unused]] const sparsec_list* lists, [[maybe_unused]] int head) {
  [[maybe_unused]] const int i0 = w.i0, i1 = w.i1, nk = w.n_k, begin = w.begin, end = w.end;
  const int lo0 = maximum(0, i0 - 4095);
  const int hi0 = maximum(minimum(nk, i1 + 1), 0);
  const int from0 = minimum(maximum(0, ((i0 - 4095) >> 6)), (nk >> 6));
  const int to0 = maximum(from0, ((lo0 < hi0) ? maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0) : minimum(maximum(0, ((i0 - 4095) >> 6)), (nk >> 6))));
  const int stop0 = maximum(from0, to0);
  const int full_from0 = maximum(0, ((i1 - 4032) >> 6));
  const int full_to0 = maximum(full_from0, maximum(maximum(0, ((i1 - 4095) >> 6)), maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0)));
  ...
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return ((i - 4095 < j + 1) & (j < i + 1)); };
...
