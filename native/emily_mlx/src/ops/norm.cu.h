// x * rsqrt(mean(x^2) + eps) * weight of the rows of x, a warp a row.
constexpr int width = 16 / sizeof(T);
struct alignas(16) Piece {
  T of[width];
};
const int columns = weight_shape[0], lane = threadIdx.x % 32;
const float eps = __int_as_float(eps_bits);
long long rows = 1;
for (int axis = 0; axis + 1 < x_ndim; axis++)
  rows *= x_shape[axis];
auto is_whole = [](const void* at) { return reinterpret_cast<size_t>(at) % 16 == 0; };
const bool in_pieces = columns % width == 0 && is_whole(x) && is_whole(weight) && is_whole(out);
auto grid = cg::this_grid();
for (long long row = grid.thread_rank() / 32; row < rows; row += grid.size() / 32) {
  const T* in = x + row * columns;
  T* to = out + row * columns;
  float sum = 0;
  auto add = [&](T number) {
    const float value = static_cast<float>(number);
    sum += value * value;
  };
  if (in_pieces) {
    for (int at = lane * width; at < columns; at += 32 * width) {
      const Piece piece = *reinterpret_cast<const Piece*>(in + at);
      for (int i = 0; i < width; i++) add(piece.of[i]);
    }
  } else {
    for (int at = lane; at < columns; at += 32) add(in[at]);
  }
  for (int o = 16; o > 0; o /= 2)
    sum += __shfl_xor_sync(0xffffffff, sum, o);
  const float scale = rsqrtf(sum / columns + eps);
  auto scaled = [&](T number, T factor) {
    return static_cast<T>(static_cast<float>(number) * scale * static_cast<float>(factor));
  };
  if (in_pieces) {
    for (int at = lane * width; at < columns; at += 32 * width) {
      const Piece piece = *reinterpret_cast<const Piece*>(in + at);
      const Piece factors = *reinterpret_cast<const Piece*>(weight + at);
      Piece result;
      for (int i = 0; i < width; i++) result.of[i] = scaled(piece.of[i], factors.of[i]);
      *reinterpret_cast<Piece*>(to + at) = result;
    }
  } else {
    for (int at = lane; at < columns; at += 32) to[at] = scaled(in[at], weight[at]);
  }
}
