// x with `update` in place of as many entries of the axis `along`, from `starts` on.
constexpr int width = 16 / sizeof(T);
struct alignas(16) Piece {
  T of[width];
};
// Of each of `outer` blocks entries of `inner` numbers follow each other.
long long outer = 1, inner = 1;
for (int axis = 0; axis < x_ndim; axis++) {
  if (axis < along) outer *= x_shape[axis];
  if (axis > along) inner *= x_shape[axis];
}
const long long block = x_shape[along] * inner, part = update_shape[along] * inner;
const long long first = (long long)starts[0] * inner, count = outer * block;
auto is_whole = [](const void* at) { return reinterpret_cast<size_t>(at) % 16 == 0; };
auto from = [&](long long i) {
  const long long at = i % block - first;
  return at < 0 || at >= part ? x + i : update + i / block * part + at;
};
auto grid = cg::this_grid();
if (inner % width == 0 && is_whole(x) && is_whole(update) && is_whole(out)) {
  for (long long i = grid.thread_rank(); i < count / width; i += grid.size())
    reinterpret_cast<Piece*>(out)[i] = *reinterpret_cast<const Piece*>(from(i * width));
} else {
  for (long long i = grid.thread_rank(); i < count; i += grid.size()) out[i] = *from(i);
}
