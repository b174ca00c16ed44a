// Turns the planes of x, [batch, heads, positions, columns], `each` heads a thread.
const int heads = x_shape[1], positions = x_shape[2], columns = x_shape[3];
const int groups = (heads + each - 1) / each;
const long long count = (long long)x_shape[0] * groups * positions * half;
auto grid = cg::this_grid();
for (long long i = grid.thread_rank(); i < count; i += grid.size()) {
  const int plane = i % half;
  const int position = i / half % positions;
  const int group = i / half / positions % groups;
  const int batch = i / half / positions / groups;
  const int from = offset[offset_shape[0] == 1 ? 0 : batch * offset_strides[0]];
  const float a = angle(from + position, plane), c = cosf(a), s = sinf(a);
  const int first = traditional ? 2 * plane : plane;
  const int second = traditional ? 2 * plane + 1 : plane + half;
  // All are read before the first is written: the compiler does not know that what is written is not read.
  float as[each], bs[each];
  for (int h = 0; h < each; h++) {
    const int head = group * each + h < heads ? group * each + h : group * each;
    const T* in = x + batch * x_strides[0] + head * x_strides[1] + position * x_strides[2];
    as[h] = static_cast<float>(in[first * x_strides[3]]);
    bs[h] = static_cast<float>(in[second * x_strides[3]]);
  }
  for (int h = 0; h < each && group * each + h < heads; h++) {
    const int head = group * each + h;
    const T* in = x + batch * x_strides[0] + head * x_strides[1] + position * x_strides[2];
    T* to = out + (((long long)batch * heads + head) * positions + position) * columns;
    to[first] = static_cast<T>(as[h] * c - bs[h] * s);
    to[second] = static_cast<T>(as[h] * s + bs[h] * c);
    for (int rest = dims + plane; rest < columns; rest += half)
      to[rest] = in[rest * x_strides[3]];
  }
}
