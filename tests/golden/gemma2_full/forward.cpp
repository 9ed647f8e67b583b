...

constexpr float SOFTCAP = 50.0f;

...

// tanh, relative error 3.3e-7 (a rational function of x^2); NaN stays NaN. Step by step as in exp2.
template <int N>
inline void tanh(vec (&x)[N]) {
  vec square[N], p[N], q[N];
  EACH(n, N) x[n] = maximum(splat(-9.0f), x[n]);
  EACH(n, N) x[n] = 9.0f < x[n] ? splat(9.0f) : x[n];
  EACH(n, N) square[n] = x[n] * x[n];
  EACH(n, N) p[n] = square[n] * 1.33545370e-8f + 2.06089881e-5f;
  EACH(n, N) q[n] = square[n] * 7.77650638e-7f + 3.28562513e-4f;
  EACH(n, N) p[n] = p[n] * square[n] + 3.49558215e-3f;
  EACH(n, N) q[n] = q[n] * square[n] + 2.58769598e-2f;
  EACH(n, N) p[n] = p[n] * square[n] + 1.33810207e-1f;
  EACH(n, N) q[n] = q[n] * square[n] + 4.67143357e-1f;
  EACH(n, N) p[n] = p[n] * square[n] + 1.0f;
  EACH(n, N) q[n] = q[n] * square[n] + 1.0f;
  EACH(n, N) x[n] = x[n] * p[n] / q[n];
}

// A score s becomes SOFTCAP * tanh(s / SOFTCAP).
struct Softcap : Unchanged {
  using Unchanged::Unchanged;
  static constexpr float UNIT = 1 / SOFTCAP;

  template <int N>
  struct Kept {
    vec tanh[N];
  };

... -6
  template <int N, int V>
  void forward(vec (&x)[N], Kept<N>& kept, const ivec (&)[V], const int*) const {
    tanh(x);
    EACH(n, N) kept.tanh[n] = x[n], x[n] *= SOFTCAP * LOG2E;
  }
  template <int N>
  void backward(vec (&gradient)[N], const Kept<N>& kept) const {
    EACH(n, N) gradient[n] *= 1.0f - kept.tanh[n] * kept.tanh[n];
  }
};

typedef Softcap Modifiers;

...

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
... -1 -2
  const int hi0 = maximum(minimum(nk, i1 + 1), 0);
  const int to0 = ((0 < hi0) ? maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0) : 0);
  const int full_to0 = maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0);
  const int count0 = maximum(to0 - full_to0, 0);
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return j < i + 1; };
  // line 13: full & line 12: causal
  for (int n = 0, count = full_to0; n < count; ++n) {
    const int tile = n;
  ...
  for (int n = 0, count = count0; n < count; ++n) {
    const int tile = full_to0 + n;
...
