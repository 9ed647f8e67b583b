...

// The head's own logit in the soft-max of each of its rows, with no value.
struct LearnedSink : Unchanged {
  static constexpr bool ROW_GRADIENTS = true;
  float logit;  // in base 2

  template <class Call>
  LearnedSink(const Call& call, int64_t, int64_t head, int64_t) : logit(call.sink[head] * LOG2E) {}

  void start(float& peak, float& total) const { peak = logit, total = 1.0f; }

  // Minus the sum over the rows of the logit's weight times delta.
  template <class Call>
  void of_rows(const Call& call, int64_t head, const float* lse, const float* delta) const {
    double sum = 0.0;
    for (int64_t b = 0; b < call.batch; ++b)
      for (int64_t n = (b * HEADS + head) * call.n_q, stop = n + call.n_q; n < stop; ++n)
        if (lse[n] != INF) sum -= double(std::exp2(call.sink[head] * LOG2E - lse[n])) * delta[n];
    call.dsink[head] = float(sum);
  }
... -3
};

typedef LearnedSink Modifiers;

...

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
// line 5: window(128) & line 4: causal
void visit_class_0(Work& w, [[maybe_unused]] const sparsec_list* lists, [[maybe_unused]] int head) {
  [[maybe_unused]] const int i0 = w.i0, i1 = w.i1, nk = w.n_k, begin = w.begin, end = w.end;
  const int lo0 = maximum(0, i0 - 127);
  const int hi0 = maximum(minimum(nk, i1 + 1), 0);
  const int from0 = minimum(maximum(0, ((i0 - 127) >> 6)), (nk >> 6));
  const int to0 = maximum(from0, ((lo0 < hi0) ? maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0) : minimum(maximum(0, ((i0 - 127) >> 6)), (nk >> 6))));
  const int stop0 = maximum(from0, to0);
  const int full_from0 = maximum(0, ((i1 - 64) >> 6));
  const int full_to0 = maximum(full_from0, maximum(maximum(0, ((i1 - 127) >> 6)), maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0)));
  ...
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return ((i - 127 < j + 1) & (j < i + 1)); };
...
