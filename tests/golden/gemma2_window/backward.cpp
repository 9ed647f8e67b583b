...

constexpr float SOFTCAP = 50.0f;

...

// ---- Head classes: which query tiles the keys j0 .. j1 visit, in full or through a mask.
// line 6: window(4096) & line 5: causal
void visit_class_0(Work& w, [[maybe_unused]] const sparsec_list* lists, [[maybe_unused]] int head) {
  [[maybe_unused]] const int j0 = w.j0, j1 = w.j1, nk = w.n_k, base = w.origin, begin = w.begin, end = w.end;
  const int lo0 = maximum(begin, j0 - base);
  const int hi0 = maximum(minimum(end, j1 + 4096 - base), 0);
  const int from0 = minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6));
  const int to0 = maximum(from0, ((lo0 < hi0) ? maximum(minimum(((end + 63) >> 6), ((j1 + 4096 - base + 63) >> 6)), 0) : minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6))));
  const int stop0 = maximum(from0, to0);
  const int full_from0 = maximum(((begin + 63) >> 6), ((j1 - base + 63) >> 6));
  const int full_to0 = maximum(full_from0, maximum(maximum((begin >> 6), ((j1 - base) >> 6)), maximum(minimum((end >> 6), ((j0 + 4096 - base) >> 6)), 0)));
  ...
  const auto live = [&]([[maybe_unused]] ivec j, [[maybe_unused]] int i) -> ivec { return ((j < i + 1) & (i < j + 4096)); };
...
