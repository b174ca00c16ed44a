// Adds each update to the element at its place. Sums of integers wrap as they do everywhere.
auto grid = cg::this_grid();
for (long long i = grid.thread_rank(); i < places_shape[0]; i += grid.size())
  atomicAdd((unsigned long long*)out + places[i], (unsigned long long)updates[i]);
