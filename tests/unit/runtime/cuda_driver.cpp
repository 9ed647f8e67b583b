// A driver without a GPU: memory is the host's, and the one kernel is dense attention.
#include <cuda.h>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include "kernels.h"
static float number(const uint16_t* at) {
  const uint32_t wide = uint32_t(*at) << 16;
  float found;
  return std::memcpy(&found, &wide, 4), found;
}
extern "C" {
CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int* count) { return *count = std::getenv("NO_GPU") ? 0 : 1, CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice* device, int) { return *device = 0, CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRetain(CUcontext*, CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }
CUresult cuModuleLoadData(CUmodule*, const void* code) {
  return std::memcmp(code, "\177ELF", 4) == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}
CUresult cuModuleGetFunction(CUfunction*, CUmodule, const char* name) { return std::puts(name), CUDA_SUCCESS; }
CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { return CUDA_SUCCESS; }
CUresult cuMemAlloc_v2(CUdeviceptr* at, size_t bytes) { return *at = CUdeviceptr(std::malloc(bytes)), CUDA_SUCCESS; }
CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t n) {
  return std::memcpy((void*)to, from, n), CUDA_SUCCESS;
}
CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t n) { return std::memcpy(to, (void*)from, n), CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult, const char** said) { return *said = "of the driver", CUDA_SUCCESS; }
CUresult cuCtxSynchronize() { return CUDA_SUCCESS; }
CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t, void* at,
                                const cuuint64_t* shape, const cuuint64_t* strides, const cuuint32_t* box,
                                const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  std::printf("map %d of %d %d %d in %d x %d, swizzle %d\n", type, int(shape[0]), int(shape[1]), int(shape[2]), box[0],
              box[1], swizzle);
  return std::memcpy(map, &at, sizeof at), strides[0] % 16 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned,
                        unsigned shared, CUstream, void** parameters, void**) {
  sparsec_forward_0_arguments to;
  std::memcpy(&to, parameters[0], sizeof to);
  std::printf("launch %u %u %u of %u threads, %u bytes\n", x, y, z, threads, shared);
  const int64_t D = sparsec_head_dim, H = sparsec_heads, share = H / sparsec_kv_heads;
  const uint16_t *q = (uint16_t*)to.q, *v = (uint16_t*)to.v, *k;
  std::memcpy(&k, &to.keys_0, sizeof k);
  for (int64_t h = 0; h < H; ++h)
    for (int64_t i = 0; i < to.nq; i += 111) {
      double sums[sparsec_head_dim] = {}, weights = 0;
      const uint16_t* row = q + (h * to.q_head + i * to.q_row) * 8;
      for (int64_t j = 0; j <= i + to.q0; ++j) {
        double score = 0;
        const int64_t at = (h / share * to.k_head + j * to.k_row) * 8;
        for (int64_t d = 0; d < D; ++d) score += number(row + d) * number(k + at + d);
        const double weight = std::exp2(score * to.scale_log2);
        weights += weight;
        for (int64_t d = 0; d < D; ++d) sums[d] += weight * number(v + at + d);
      }
      for (int64_t d = 0; d < D; ++d) {
        const float found = sums[d] / weights;
        std::memcpy((uint16_t*)to.out + (h * to.out_head + i * to.out_row) * 8 + d, (const char*)&found + 2, 2);
      }
    }
  return CUDA_SUCCESS;
}
}
