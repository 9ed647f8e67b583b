...

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
// line 24: window(16b) & line 23: causal
// line 24: stride(16b) & line 23: causal
void visit_class_0(Work& w, [[maybe_unused]] const sparsec_list* lists, [[maybe_unused]] int head) {
  [[maybe_unused]] const int i0 = w.i0, i1 = w.i1, nk = w.n_k, begin = w.begin, end = w.end;
... -2
  const int count3 = ((until1 + 31) >> 4) - 1;
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return ((((i >> 6) * 64 - 960 < j + 1) & (j < i + 1)) | ((j < i + 1) & truth(((j >> 6) & 15) < 1))); };
  // line 24: window(16b) & line 23: causal
  ...
  // line 24: stride(16b) & line 23: causal
  for (int n = 0, count = count3; n < count; ++n) {
    const int tile = (n + 1) * 16 - 16;
    attend_full(w, tile);
  }
  // line 24: window(16b) & line 23: causal
  ...
  // line 24: window(16b) & line 23: causal
...
