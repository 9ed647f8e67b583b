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
