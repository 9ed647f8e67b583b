...

constexpr float SLOPES[HEADS] = {1.0201394465967897f, 0.7213475204444817f, 0.5100697232983948f, 0.36067376022224085f, 0.2550348616491974f, 0.18033688011112042f, 0.1275174308245987f, 0.09016844005556021f, 0.06375871541229935f, 0.045084220027780106f, 0.03187935770614968f, 0.022542110013890053f, 0.01593967885307484f, 0.011271055006945026f, 0.00796983942653742f, 0.005635527503472513f};

...

inline vec distance(ivec a, int b) {
  const ivec away = a - b;
  return __builtin_convertvector(maximum(away, -away), vec);
}

// A score loses the head's slope times the distance of query and key.
struct Alibi : Unchanged {
  static constexpr bool POSITIONS = true;
  float slope;  // times log2(e)

  template <class Call>
  Alibi(const Call&, int64_t, int64_t head, int64_t) : slope(SLOPES[head]) {}

  template <int N, int V>
  void forward(vec (&x)[N], Kept<N>&, const ivec (&lane)[V], const int* other) const {
    EACH(n, N) x[n] -= distance(lane[n % V], other[n / V]) * slope;
  }
};

typedef Alibi Modifiers;

...
