...

... -1
// line 5: sink(128) & line 4: causal
// line 5: window(8192) & line 4: causal
void visit_class_1(Work& w, [[maybe_unused]] const sparsec_list* lists, [[maybe_unused]] int head) {
  [[maybe_unused]] const int i0 = w.i0, i1 = w.i1, nk = w.n_k, begin = w.begin, end = w.end;
  const int hi0 = maximum(minimum(minimum(nk, 128), i1 + 1), 0);
  const int to0 = ((0 < hi0) ? maximum(minimum(minimum(((nk + 63) >> 6), 2), ((i1 + 64) >> 6)), 0) : 0);
  const int lo0 = maximum(0, i0 - 8191);
  const int hi1 = maximum(minimum(nk, i1 + 1), 0);
  const int from0 = minimum(maximum(0, ((i0 - 8191) >> 6)), (nk >> 6));
  const int to1 = maximum(from0, ((lo0 < hi1) ? maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0) : minimum(maximum(0, ((i0 - 8191) >> 6)), (nk >> 6))));
  const int start0 = maximum(from0, to0);
  const int stop0 = maximum(start0, to1);
  const int hi2 = maximum(minimum(minimum(nk, 128), i0 + 1), 0);
  const int lo1 = maximum(0, i1 - 8191);
  const int full_to0 = maximum(minimum(minimum((nk >> 6), 2), ((i0 + 1) >> 6)), 0);
  const int full_from0 = maximum(((((lo1 < hi2 + 1) ? 0 : lo1) + 63) >> 6), full_to0);
  const int full_to1 = maximum(full_from0, maximum(maximum(minimum(minimum((nk >> 6), 2), ((i0 + 1) >> 6)), 0), maximum(maximum(0, ((i1 - 8191) >> 6)), maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0))));
  ...
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return ((truth(j < 128) & (j < i + 1)) | ((i - 8191 < j + 1) & (j < i + 1))); };
...

void visit(Work& w, const sparsec_list* lists, int head) {
  static const int class_of_head[HEADS] = {0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1};
  switch (class_of_head[head]) {
    case 0: visit_class_0(w, lists, head); break;
    case 1: visit_class_1(w, lists, head); break;
  }
}

...
