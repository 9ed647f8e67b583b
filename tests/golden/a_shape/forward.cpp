...

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
// line 4: sink(1024) & line 3: causal
// line 4: window(4096) & line 3: causal
... -1
void visit_class_0(Work& w, [[maybe_unused]] const sparsec_list* lists, [[maybe_unused]] int head) {
  [[maybe_unused]] const int i0 = w.i0, i1 = w.i1, nk = w.n_k, begin = w.begin, end = w.end;
  const int hi0 = maximum(minimum(minimum(nk, 1024), i1 + 1), 0);
  const int to0 = ((0 < hi0) ? maximum(minimum(minimum(((nk + 63) >> 6), 16), ((i1 + 64) >> 6)), 0) : 0);
  ...
  const int hi2 = maximum(minimum(minimum(nk, 1024), i0 + 1), 0);
  const int lo1 = maximum(0, i1 - 4095);
  const int full_to0 = maximum(minimum(minimum((nk >> 6), 16), ((i0 + 1) >> 6)), 0);
  const int full_from0 = maximum(((((lo1 < hi2 + 1) ? 0 : lo1) + 63) >> 6), full_to0);
  const int full_to1 = maximum(full_from0, maximum(maximum(minimum(minimum((nk >> 6), 16), ((i0 + 1) >> 6)), 0), maximum(maximum(0, ((i1 - 4095) >> 6)), maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0))));
  ...
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return ((truth(j < 1024) & (j < i + 1)) | ((i - 4095 < j + 1) & (j < i + 1))); };
  // line 4: sink(1024) & line 3: causal
  ...
  // line 4: sink(1024) & line 3: causal
  ...
  // line 4: sink(1024) & line 3: causal
...
