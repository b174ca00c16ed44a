// The activation of each number of x, times UP(i), in f32.
long long count = 1;
for (int axis = 0; axis < x_ndim; axis++)
  count *= x_shape[axis];
auto grid = cg::this_grid();
for (long long i = grid.thread_rank(); i < count; i += grid.size()) {
  const float g = static_cast<float>(x[i]);
  out[i] = static_cast<T>(activated(g) * UP(i));
}
