// What Emily's CUDA kernels for a token take, each in a chain of its own: microseconds, of 20 runs of a graph of 240 launches
// that wait for one another, over 60 matrices, which no cache holds together.
//
//   nvcc -O3 -std=c++17 -arch=sm_90 -o kernels bench/gpu/kernels.cu && ./kernels
//   ./kernels waiting       each begins when the one before is through
//
// The kernels are the bodies that MLX is given, with what MLX puts around them.
#ifndef __CUDACC_RTC__
#include <cuda_runtime.h>
#endif
#include <cuda_bf16.h>
#include <cooperative_groups.h>
namespace cg = cooperative_groups;

struct Shape {
  int of[4];
  __device__ int operator[](int i) const { return of[i]; }
};
struct Strides {
  long long of[4];
  __device__ long long operator[](int i) const { return of[i]; }
};
typedef __nv_bfloat16 T;

#ifdef __CUDACC__
// As MLX is given them (`runtime/cuda.rs`): they begin while those before them run, and wait.
#define BEGIN asm volatile("griddepcontrol.launch_dependents;");
#define WAIT asm volatile("griddepcontrol.wait;" ::: "memory");

#define FEW_ROWS(NAME)                                                                                           \
  __global__ void NAME(const T* x, const T* matrix, const T* other, const T* weight, const T* added, T* out,       \
                       Shape x_shape, Strides x_strides, Shape matrix_shape, Strides matrix_strides,               \
                       Strides other_strides, Strides weight_strides, Strides added_strides)
template <int normed, int gated, int summed, int groups>
FEW_ROWS(few_rows) {
  constexpr bool turned = false;
  constexpr int rows = 1, threads = 256, half = 1, activation = 1, eps_bits = 123;
  BEGIN
#include "../../native/emily_mlx/src/ops/dot/few_matrix.cu.h"
  WAIT
#include "../../native/emily_mlx/src/ops/activation.cu.h"
#include "../../native/emily_mlx/src/ops/dot/few.cu.h"
}
// The least that such a kernel can be.
FEW_ROWS(copy) {
  BEGIN WAIT
  if (threadIdx.x < 8) out[blockIdx.x * 8 + threadIdx.x] = x[(blockIdx.x * 8 + threadIdx.x) % x_shape[1]];
}
__global__ void attention(const T* q, const T* k, const T* v, const unsigned* key_mask, const int* offset, T* out,
                          Shape q_shape, Strides q_strides, Shape k_shape, Strides k_strides, Strides v_strides,
                          Strides key_mask_strides) {
  constexpr int dims = 64, scale_bits = 1040187392;
  BEGIN WAIT
#include "../../native/emily_mlx/src/ops/attention/cached.cu.h"
}
__global__ void place(const T* x, unsigned* out, Shape x_shape) {
  constexpr int least = 0, last = 0;
  BEGIN WAIT
#include "../../native/emily_mlx/src/ops/place.cu.h"
}
#endif

#ifndef __CUDACC_RTC__
#include <algorithm>
#include <cstdio>
#include <string>

constexpr int LAUNCHES = 240, RUNS = 20, MATRICES = 60;

// Whether kernels may begin while those before them run.
int is_early = 1;

template <class Launch>
void timed(const std::string& name, Launch launch) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t run;
  cudaStreamCreate(&stream);
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
  for (int i = 0; i < LAUNCHES; i++) launch(i, stream);
  cudaStreamEndCapture(stream, &graph);
  cudaGraphInstantiate(&run, graph, 0);
  for (int i = 0; i < 5; i++) cudaGraphLaunch(run, stream);
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  cudaEventRecord(begin, stream);
  for (int i = 0; i < RUNS; i++) cudaGraphLaunch(run, stream);
  cudaEventRecord(end, stream);
  cudaStreamSynchronize(stream);
  float ms = 0;
  cudaEventElapsedTime(&ms, begin, end);
  printf("%-32s %6.2f us  %s\n", name.c_str(), ms * 1000 / RUNS / LAUNCHES, cudaGetErrorString(cudaGetLastError()));
}

template <class... Parameters, class... Arguments>
void launched(void (*kernel)(Parameters...), int blocks, int threads, cudaStream_t stream, Arguments... arguments) {
  void* pointers[] = {&arguments...};
  cudaLaunchAttribute early;
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = is_early;
  cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel), pointers);
}

#ifdef __CUDACC__
int main(int count, char**) {
  is_early = count == 1;
  const size_t all = size_t(1) << 30;
  T *matrices, *one, *two;
  cudaMalloc(&matrices, all);
  cudaMalloc(&one, 1 << 20);
  cudaMalloc(&two, 1 << 20);
  for (auto [at, bytes] : {std::pair{matrices, all}, {one, size_t(1) << 20}, {two, size_t(1) << 20}}) cudaMemset(at, 0, bytes);

  auto few = [&](auto kernel, const std::string& name, int inner, int columns, bool transposed) {
    timed(name + (transposed ? " transposed " : " rows ") + std::to_string(inner) + " by " + std::to_string(columns),
          [=](int i, cudaStream_t stream) {
            const size_t size = size_t(inner) * columns, from = i % MATRICES * 2 * size % (all / 4);
            T *in = i % 2 ? one : two, *out = i % 2 ? two : one, *matrix = matrices + from;
            const Shape x{{1, inner}}, shape{{inner, columns}};
            const Strides row{{inner, 1}}, steps = transposed ? Strides{{1, inner}} : Strides{{columns, 1}}, last{{1}};
            launched(kernel, std::min(columns / 8, 8192), 256, stream, (const T*)in, (const T*)matrix, (const T*)(matrix + size),
                     (const T*)one + 65536, (const T*)two + 65536, out, x, row, shape, steps, steps, last, row);
          });
  };
  few(copy, "copy", 576, 576, false);
  for (bool transposed : {false, true}) {
    few(few_rows<1, 0, 0, 2>, "norm and product", 576, 576, transposed);
    few(few_rows<0, 0, 1, 2>, "product and sum", 576, 576, transposed);
    few(few_rows<0, 0, 1, 2>, "product and sum", 1536, 576, transposed);
    few(few_rows<1, 1, 0, 2>, "gate", 576, 1536, transposed);
    few(few_rows<0, 0, 0, 4>, "product, 4 groups", 4096, 4096, transposed);
    for (auto [inner, columns] : {std::pair{4096, 4096}, {576, 49152}, {1024, 151936}}) {
      few(few_rows<1, 0, 0, 2>, "norm and product", inner, columns, transposed);
      few(few_rows<1, 0, 0, 4>, "the same, 4 groups", inner, columns, transposed);
      few(few_rows<1, 0, 0, 8>, "the same, 8 groups", inner, columns, transposed);
    }
  }

  unsigned* mask;
  int *offset, last = 150;
  cudaMalloc(&mask, 1 << 16);
  cudaMemset(mask, 1, 1 << 16);
  cudaMalloc(&offset, sizeof(int));
  cudaMemcpy(offset, &last, sizeof(int), cudaMemcpyHostToDevice);
  timed("attention, 151 of 160 keys", [=](int i, cudaStream_t stream) {
    const T* keys = matrices + size_t(i % MATRICES) * 65536;
    const Strides query{{576, 64, 576, 1}}, cache{{160 * 192, 64, 192, 1}}, seen{{160, 1}};
    launched(attention, 9, 512, stream, (const T*)(i % 2 ? one : two), keys, keys + 32768, (const unsigned*)mask, (const int*)offset,
             i % 2 ? two : one, Shape{{1, 9, 1, 64}}, query, Shape{{1, 3, 160, 64}}, cache, cache, seen);
  });
  timed("place of the greatest of 49152", [=](int i, cudaStream_t stream) {
    launched(place, 1, 1024, stream, (const T*)matrices + size_t(i % MATRICES) * 65536, (unsigned*)one, Shape{{1, 49152}});
  });
}
#endif
#endif
