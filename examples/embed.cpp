// Calls the CPU kernel of `sparsec compile` from C++, with neither Python nor PyTorch:
//
//   sparsec compile examples/dense.sparse --heads 8 --kv-heads 2 --head-dim 64 --target cpu:x86-64-v3 -o build/dense
//   g++ -std=c++17 -O2 -I build/dense examples/embed.cpp build/dense/forward.so -Wl,-rpath,$PWD/build/dense -o embed
//   ./embed
//
// It compares rows of the output with attention in double. kernels.h, in the folder, has the structs of the calls.

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "kernels.h"

constexpr int64_t N = 1000, H = sparsec_heads, G = sparsec_kv_heads, D = sparsec_head_dim, DV = sparsec_value_dim;

std::vector<float> random_rows(int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> rows(count);
  for (float& number : rows) number = normal(generator);
  return rows;
}

// The largest difference from causal attention in double, of a few rows of each head.
double largest_error(const std::vector<float>& q, const std::vector<float>& k, const std::vector<float>& v,
                     const std::vector<float>& out) {
  double worst = 0;
  for (int64_t h = 0; h < H; ++h) {
    const int64_t group = h / (H / G);
    for (int64_t i = 0; i < N; i += 111) {
      std::vector<double> sums(DV);
      double weights = 0;
      for (int64_t j = 0; j <= i; ++j) {
        double score = 0;
        for (int64_t d = 0; d < D; ++d) score += double(q[(h * N + i) * D + d]) * k[(group * N + j) * D + d];
        const double weight = std::exp(score * double(SPARSEC_SCALE));
        weights += weight;
        for (int64_t d = 0; d < DV; ++d) sums[d] += weight * v[(group * N + j) * DV + d];
      }
      for (int64_t d = 0; d < DV; ++d)
        worst = std::fmax(worst, std::fabs(sums[d] / weights - out[(h * N + i) * DV + d]));
    }
  }
  return worst;
}

int main() {
  const auto q = random_rows(H * N * D, 1), k = random_rows(G * N * D, 2), v = random_rows(G * N * DV, 3);
  std::vector<float> out(H * N * DV), lse(H * N);

  sparsec_call call = {};  // what a pattern has none of stays null: lists, inputs, a sink, a bias, documents
  call.q = q.data(), call.k = k.data(), call.v = v.data(), call.out = out.data(), call.lse = lse.data();
  const auto dense = [](int64_t* strides, int64_t heads, int64_t columns) {
    strides[0] = heads * N * columns, strides[1] = N * columns, strides[2] = columns, strides[3] = 1;
  };
  dense(call.q_stride, H, D), dense(call.k_stride, G, D), dense(call.v_stride, G, DV), dense(call.out_stride, H, DV);
  call.lse_stride[0] = H * N, call.lse_stride[1] = N, call.lse_stride[2] = 1;
  call.batch = 1, call.n_q = N, call.n_k = N, call.scale = SPARSEC_SCALE, call.threads = 2;
  if (sparsec_forward(&call) != 0) return std::fprintf(stderr, "error: memory ran out\n"), 1;

  const double error = largest_error(q, k, v, out);
  std::printf("largest error %.1e\n", error);
  return error < 1e-4 ? 0 : 1;
}
