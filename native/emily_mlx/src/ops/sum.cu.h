// Sums of parts of the rows of x, [rows, columns], in f32. A block has one part of one row.
const int parts = gridDim.x / x_shape[0];
const long long row = blockIdx.x / parts, columns = x_shape[1];
const long long each = (columns + parts - 1) / parts;
const long long in_part = (each + 7) / 8 * 8;
const long long begin = blockIdx.x % parts * in_part;
const long long end = begin + in_part < columns ? begin + in_part : columns;
const T* in = x + row * columns;
float total = 0;
if ((size_t)in % 16 == 0 && columns % 8 == 0) {
  for (long long i = begin + threadIdx.x * 8; i < end; i += blockDim.x * 8) {
    const uint4 eight = *(const uint4*)(in + i);
    const T* numbers = (const T*)&eight;
#pragma unroll
    for (int k = 0; k < 8; k++)
      total += static_cast<float>(numbers[k]);
  }
} else {
  for (long long i = begin + threadIdx.x; i < end; i += blockDim.x)
    total += static_cast<float>(in[i]);
}
__shared__ float sums[32];
for (int lane = 16; lane > 0; lane /= 2)
  total += __shfl_down_sync(0xffffffff, total, lane);
if (threadIdx.x % 32 == 0)
  sums[threadIdx.x / 32] = total;
__syncthreads();
if (threadIdx.x < 32) {
  total = threadIdx.x < blockDim.x / 32 ? sums[threadIdx.x] : 0;
  for (int lane = 16; lane > 0; lane /= 2)
    total += __shfl_down_sync(0xffffffff, total, lane);
  if (threadIdx.x == 0)
    out[blockIdx.x] = total;
}
