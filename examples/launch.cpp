// Launches a kernel of `sparsec compile` through CUDA's driver, with neither Python, PyTorch nor Triton:
//
//   sparsec compile examples/dense.sparse --pattern dense --heads 8 --kv-heads 2 --head-dim 128 --dtype bfloat16
//       --target cuda:90 --inference -o build/dense
//   g++ -std=c++17 -I build/dense -I $CUDA_HOME/include examples/launch.cpp -ldl -o launch && ./launch build/dense
//
// It compares rows of the output with attention in double. kernels.h, in the folder, says how each kernel is launched.

#include <cuda.h>
#include <dlfcn.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "kernels.h"

constexpr int64_t N = 1000, H = sparsec_heads, G = sparsec_kv_heads, D = sparsec_head_dim;
static_assert(sparsec_value_dim == sparsec_head_dim, "this example has one dimension");

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "error: %s\n", what.c_str());
  std::exit(1);
}

// A function of the driver by its name and type; the driver is opened at run time, so this compiles without one.
template <class Function>
Function* driver(const char* name) {
  static void* const library = dlopen("libcuda.so.1", RTLD_NOW);
  if (library == nullptr) fail("expected a machine with an NVIDIA GPU, got one without its driver (libcuda.so.1)");
  void* const found = dlsym(library, name);
  if (found == nullptr) fail(std::string("expected a CUDA driver of version 12 or later, got one without ") + name);
  return reinterpret_cast<Function*>(found);
}
#define STRING(text) #text
#define NAME(function) STRING(function)
#define CALL(function, ...) check(driver<decltype(function)>(NAME(function))(__VA_ARGS__), #function)

void check(CUresult result, const char* name) {
  if (result == CUDA_SUCCESS) return;
  const char* said = nullptr;
  driver<decltype(cuGetErrorString)>("cuGetErrorString")(result, &said);
  fail(std::string(name) + ": " + (said != nullptr ? said : "unknown error"));
}

CUdeviceptr on_gpu(const void* data, size_t bytes) {
  CUdeviceptr address = 0;
  CALL(cuMemAlloc, &address, bytes);
  if (data != nullptr) CALL(cuMemcpyHtoD, address, data, bytes);
  return address;
}

float number(uint16_t bits) {
  const uint32_t wide = uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

std::vector<uint16_t> random_rows(int64_t count, uint32_t seed) {
  std::vector<uint16_t> rows(count);
  for (auto& bits : rows) {  // a bfloat16 from -1 to 1
    seed = seed * 1664525u + 1013904223u;
    const float value = float(seed >> 8) / float(1 << 23) - 1.0f;
    std::memcpy(&bits, reinterpret_cast<const char*>(&value) + 2, sizeof bits);
  }
  return rows;
}

#ifdef SPARSEC_TENSOR_MAPS
// The tensor map of [heads, N, D], read in boxes; its innermost dimension comes first.
void set(CUtensorMap& map, CUdeviceptr of, int64_t heads, const uint32_t* box, int element, int swizzle) {
  const cuuint64_t shape[] = {D, N, cuuint64_t(heads), 1},
                   strides[] = {2 * D, 2 * D * N, cuuint64_t(2 * D * N * heads)};
  const cuuint32_t steps[] = {1, 1, 1, 1};
  CALL(cuTensorMapEncodeTiled, &map, CUtensorMapDataType(element), 4, reinterpret_cast<void*>(of), shape, strides, box,
       steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CUtensorMapSwizzle(swizzle), CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
       CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}
#define SET(name, of)                                                                     \
  set(to.name, of, G, sparsec_forward_0_##name##_box, sparsec_forward_0_##name##_element, \
      sparsec_forward_0_##name##_swizzle)
#else
#define SET(name, of) to.name = of
#endif

// The largest difference from causal attention in double, of a few rows of each head.
double largest_error(const std::vector<uint16_t>& q, const std::vector<uint16_t>& k, const std::vector<uint16_t>& v,
                     const std::vector<uint16_t>& out) {
  double worst = 0;
  for (int64_t h = 0; h < H; ++h) {
    const int64_t keys = h / (H / G) * N * D;
    for (int64_t i = 0; i < N; i += 111) {
      std::vector<double> sums(D);
      double weights = 0;
      for (int64_t j = 0; j <= i; ++j) {
        double score = 0;
        for (int64_t d = 0; d < D; ++d) score += double(number(q[(h * N + i) * D + d])) * number(k[keys + j * D + d]);
        const double weight = std::exp(score * double(SPARSEC_SCALE));
        weights += weight;
        for (int64_t d = 0; d < D; ++d) sums[d] += weight * number(v[keys + j * D + d]);
      }
      for (int64_t d = 0; d < D; ++d)
        worst = std::fmax(worst, std::fabs(sums[d] / weights - number(out[(h * N + i) * D + d])));
    }
  }
  return worst;
}

int main(int count, char** arguments) {
  if (count != 2) fail("expected the folder that sparsec compile wrote");
  CALL(cuInit, 0);
  int devices = 0;
  CALL(cuDeviceGetCount, &devices);
  if (devices == 0) fail("expected an NVIDIA GPU, got none");
  CUdevice device;
  CUcontext context;
  CALL(cuDeviceGet, &device, 0);
  CALL(cuDevicePrimaryCtxRetain, &context, device);
  CALL(cuCtxSetCurrent, context);

  std::ifstream file(std::string(arguments[1]) + "/forward_0.cubin", std::ios::binary);
  const std::vector<char> code{std::istreambuf_iterator<char>(file), {}};
  if (code.empty()) fail("expected forward_0.cubin in the folder, got none");
  CUmodule module;
  CUfunction function;
  CALL(cuModuleLoadData, &module, code.data());
  CALL(cuModuleGetFunction, &function, module, "forward_0");
  CALL(cuFuncSetAttribute, function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, sparsec_forward_0_shared_bytes);

  const auto q = random_rows(H * N * D, 1), k = random_rows(G * N * D, 2), v = random_rows(G * N * D, 3);
  std::vector<uint16_t> out(q.size());
  const CUdeviceptr q_at = on_gpu(q.data(), 2 * q.size()), k_at = on_gpu(k.data(), 2 * k.size()),
                    v_at = on_gpu(v.data(), 2 * v.size()), out_at = on_gpu(nullptr, 2 * out.size());

  sparsec_sizes sizes = {};
  sizes.batch = 1, sizes.nq = N, sizes.nk = N, sizes.scale = SPARSEC_SCALE;
  for (auto* strides : {sizes.q_stride, sizes.out_stride}) strides[0] = H * N * D, strides[1] = N * D, strides[2] = D;
  for (auto* strides : {sizes.k_stride, sizes.v_stride}) strides[0] = G * N * D, strides[1] = N * D, strides[2] = D;

  sparsec_forward_0_arguments to = {};
  sparsec_forward_0_numbers(&to, &sizes);
  SET(keys_0, k_at);
  SET(values_0, v_at);
  to.q = q_at, to.v = v_at, to.out = out_at, to.lse = on_gpu(nullptr, sizeof(float) * H * N);
  to.table = on_gpu(sparsec_forward_0_table, sizeof sparsec_forward_0_table);
  void* parameters[sizeof to / 4];
  sparsec_forward_0_parameters(&to, parameters);
  CALL(cuLaunchKernel, function, unsigned(sparsec_forward_0_programs(&sizes)), 1, 1, sparsec_forward_0_threads, 1, 1,
       sparsec_forward_0_shared_bytes, nullptr, parameters, nullptr);
  CALL(cuCtxSynchronize);
  CALL(cuMemcpyDtoH, out.data(), out_at, 2 * out.size());

  const double error = largest_error(q, k, v, out);
  std::printf("largest error %.4f\n", error);
  return error < 0.02 ? 0 : 1;
}
