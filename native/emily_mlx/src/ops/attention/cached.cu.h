// A block a query, of `warps` warps. They take the keys in turn, a lane the columns 32 apart, and join what they have
// summed up at the end. A query that sees no key has the mean of all values.
constexpr int warps = 16, columns = (dims + 31) / 32;
__shared__ float greatest[warps], weights[warps], sums[warps][dims];
const float none = __int_as_float(0xff800000), scale = __int_as_float(scale_bits);
const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
const int heads = q_shape[1], queries = q_shape[2], keys = k_shape[2];
const int query = blockIdx.x % queries;
const int head = blockIdx.x / queries % heads;
const int batch = blockIdx.x / queries / heads;
const int group = head / (heads / k_shape[1]);
const long long last = (long long)offset[0] + query;
const T* from = q + batch * q_strides[0] + head * q_strides[1] + query * q_strides[2];
const T* all_keys = k + batch * k_strides[0] + group * k_strides[1];
const T* all_values = v + batch * v_strides[0] + group * v_strides[1];

float in[columns], sum[columns];
for (int c = 0; c < columns; c++) {
  const int d = lane + 32 * c;
  in[c] = d < dims ? scale * static_cast<float>(from[d * q_strides[3]]) : 0.0f;
  sum[c] = 0.0f;
}
float most = none, weight = 0.0f;
for (int key = warp; key < keys && key <= last; key += warps) {
  if (!key_mask[batch * key_mask_strides[0] + key * key_mask_strides[1]]) continue;
  float score = 0.0f;
  for (int c = 0; c < columns; c++) {
    const int d = lane + 32 * c;
    if (d < dims) score += in[c] * static_cast<float>(all_keys[key * k_strides[2] + d * k_strides[3]]);
  }
  for (int o = 16; o > 0; o /= 2) score += __shfl_xor_sync(0xffffffff, score, o);
  const float next = fmaxf(most, score);
  const float kept = most == next ? 1.0f : expf(most - next), here = score == next ? 1.0f : expf(score - next);
  weight = weight * kept + here;
  for (int c = 0; c < columns; c++) {
    const int d = lane + 32 * c;
    if (d < dims) sum[c] = sum[c] * kept + here * static_cast<float>(all_values[key * v_strides[2] + d * v_strides[3]]);
  }
  most = next;
}
if (lane == 0) {
  greatest[warp] = most;
  weights[warp] = weight;
}
for (int c = 0; c < columns; c++) {
  if (lane + 32 * c < dims) sums[warp][lane + 32 * c] = sum[c];
}
__syncthreads();

most = none;
for (int w = 0; w < warps; w++) most = fmaxf(most, greatest[w]);
for (int d = threadIdx.x; d < dims; d += blockDim.x) {
  float above = 0.0f, below = 0.0f;
  if (most == none) {
    for (int key = 0; key < keys; key++) above += static_cast<float>(all_values[key * v_strides[2] + d * v_strides[3]]);
    below = keys;
  }
  for (int w = 0; most != none && w < warps; w++) {
    const float part = expf(greatest[w] - most);
    above += part * sums[w][d];
    below += part * weights[w];
  }
  out[(long long)blockIdx.x * dims + d] = static_cast<T>(above / below);
}
