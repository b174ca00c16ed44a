// A block a query. Some lanes of a warp take a key together, so that a warp has several at a time; they join what they
// have summed up at the end. The first keys and values are on their way before the barrier behind which the query is read,
// and before it is known how many are seen. A query that sees no key has the mean of all values.
constexpr int warps = 16, width = 16 / sizeof(T);
constexpr int pieces = (dims + width - 1) / width;
constexpr int lanes = pieces > 16 ? 32 : pieces > 8 ? 16 : pieces > 4 ? 8 : pieces > 2 ? 4 : 2;
constexpr int each = (pieces + lanes - 1) / lanes, at_once = 32 / lanes, ahead = each == 1 ? 4 : each == 2 ? 2 : 1;
struct alignas(16) Piece {
  T of[width];
};
__shared__ float in[each * lanes * width], greatest[warps], weights[warps], sums[warps][dims];
const float none = __int_as_float(0xff800000), scale = __int_as_float(scale_bits);
const int lane = threadIdx.x % 32 % lanes, warp = threadIdx.x / 32, of_warp = threadIdx.x % 32 / lanes;
const int heads = q_shape[1], queries = q_shape[2], keys = k_shape[2];
const int query = blockIdx.x % queries;
const int head = blockIdx.x / queries % heads;
const int batch = blockIdx.x / queries / heads;
const int group = head / (heads / k_shape[1]);
const long long last = (long long)offset[0] + query;
const T* from = q + batch * q_strides[0] + head * q_strides[1] + query * q_strides[2];
const T* all_keys = k + batch * k_strides[0] + group * k_strides[1];
const T* all_values = v + batch * v_strides[0] + group * v_strides[1];

auto in_pieces = [](const T* at, long long to_next, long long step) {
  return dims % width == 0 && step == 1 && to_next % width == 0 && reinterpret_cast<size_t>(at) % 16 == 0;
};
const bool whole = in_pieces(all_keys, k_strides[2], k_strides[3]) && in_pieces(all_values, v_strides[2], v_strides[3]);
auto piece = [&](const T* row, long long step, int d) {
  Piece read;
  if (whole) {
    *reinterpret_cast<uint4*>(&read) = *reinterpret_cast<const uint4*>(row + d);
  } else {
    for (int i = 0; i < width; i++) read.of[i] = d + i < dims ? row[(d + i) * step] : static_cast<T>(0.0f);
  }
  return read;
};

const float of_query = threadIdx.x < dims ? static_cast<float>(from[threadIdx.x * q_strides[3]]) : 0.0f;
float most = none, weight = 0.0f, sum[each][width] = {};
const int step = warps * at_once;
int base = 0, end = keys;
do {
  Piece key[ahead][each], value[ahead][each];
  bool seen[ahead];
  for (int a = 0; a < ahead; a++) {
    const int at = base + a * step + warp * at_once + of_warp, there = at < end ? at : 0;
    seen[a] = at < end && key_mask[batch * key_mask_strides[0] + there * key_mask_strides[1]];
    for (int p = 0; p < each; p++) {
      const int d = (lane + p * lanes) * width, from_d = d < dims ? d : 0;
      key[a][p] = piece(all_keys + there * k_strides[2], k_strides[3], from_d);
      value[a][p] = piece(all_values + there * v_strides[2], v_strides[3], from_d);
    }
  }
  if (base == 0) {
    // A block has more threads than a query has columns.
    if (threadIdx.x < each * lanes * width) in[threadIdx.x] = scale * of_query;
    end = last + 1 < keys ? last + 1 : keys;
  }
  __syncthreads();
  for (int a = 0; a < ahead; a++) {
    seen[a] = seen[a] && base + a * step + warp * at_once + of_warp < end;
    float score = 0.0f;
    for (int p = 0; p < each; p++) {
      const int d = (lane + p * lanes) * width;
      for (int i = 0; i < width; i++) score += in[d + i] * (seen[a] && d < dims ? static_cast<float>(key[a][p].of[i]) : 0.0f);
    }
    for (int o = lanes / 2; o > 0; o /= 2) score += __shfl_xor_sync(0xffffffff, score, o);
    if (!seen[a]) continue;
    const float next = fmaxf(most, score);
    const float kept = most == next ? 1.0f : expf(most - next), here = score == next ? 1.0f : expf(score - next);
    weight = weight * kept + here;
    for (int p = 0; p < each; p++) {
      for (int i = 0; i < width; i++) sum[p][i] = sum[p][i] * kept + here * static_cast<float>(value[a][p].of[i]);
    }
    most = next;
  }
  base += ahead * step;
} while (base < end);
// What the lanes of a warp have for the same columns, then what the warps have.
for (int o = lanes; o < 32; o *= 2) {
  const float other = __shfl_xor_sync(0xffffffff, most, o), next = fmaxf(most, other);
  const float kept = most == next ? 1.0f : expf(most - next), here = other == next ? 1.0f : expf(other - next);
  weight = weight * kept + here * __shfl_xor_sync(0xffffffff, weight, o);
  for (int p = 0; p < each; p++) {
    for (int i = 0; i < width; i++) {
      const float there = __shfl_xor_sync(0xffffffff, sum[p][i], o);
      sum[p][i] = sum[p][i] * kept + here * there;
    }
  }
  most = next;
}
if (of_warp == 0) {
  if (lane == 0) {
    greatest[warp] = most;
    weights[warp] = weight;
  }
  for (int p = 0; p < each; p++) {
    for (int i = 0; i < width; i++) {
      const int d = (lane + p * lanes) * width + i;
      if (d < dims) sums[warp][d] = sum[p][i];
    }
  }
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
