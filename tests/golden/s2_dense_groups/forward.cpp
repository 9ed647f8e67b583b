...

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
// line 9: window(16b) & line 7: causal & line 29: causal
// line 9: stride(16b) & line 7: causal & line 29: causal
void visit_class_0(Work& w, [[maybe_unused]] const sparsec_list* lists, [[maybe_unused]] int head) {
  [[maybe_unused]] const int i0 = w.i0, i1 = w.i1, nk = w.n_k, begin = w.begin, end = w.end;
  static const int c0_of_head[HEADS] = {0, 0, 15, 15, 14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 0, 0};
  ...
  // line 9: window(16b) & line 7: causal & line 29: causal
  ...
  // line 9: stride(16b) & line 7: causal & line 29: causal
  ...
  // line 9: window(16b) & line 7: causal & line 29: causal
  ...
  // line 9: window(16b) & line 7: causal & line 29: causal
...

// line 30: full & line 29: causal
void visit_class_1(Work& w, [[maybe_unused]] const sparsec_list* lists, [[maybe_unused]] int head) {
  [[maybe_unused]] const int i0 = w.i0, i1 = w.i1, nk = w.n_k, begin = w.begin, end = w.end;
... -1
  const int hi0 = maximum(minimum(nk, i1 + 1), 0);
  const int to0 = ((0 < hi0) ? maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0) : 0);
  const int full_to0 = maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0);
  const int count0 = maximum(to0 - full_to0, 0);
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return j < i + 1; };
  // line 30: full & line 29: causal
  for (int n = 0, count = full_to0; n < count; ++n) {
    const int tile = n;
    attend_full(w, tile);
  }
  // line 30: full & line 29: causal
  for (int n = 0, count = count0; n < count; ++n) {
    const int tile = full_to0 + n;
...

void visit(Work& w, const sparsec_list* lists, int head) {
  static const int class_of_head[HEADS] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1};
  switch (class_of_head[head]) {
    case 0: visit_class_0(w, lists, head); break;
    case 1: visit_class_1(w, lists, head); break;
  }
}

...
