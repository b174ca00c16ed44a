// Turns the planes of x, [batch, heads, positions, columns], four heads a thread. FREQUENCY(plane), which reads
// periods, with periods_strides, is what a position is multiplied by.
constexpr int half = dims / 2;
const float scale = (backwards ? -1.0f : 1.0f) * __int_as_float(scale_bits);
const int heads = x_shape[1], positions = x_shape[2], columns = x_shape[3];
const int groups = (heads + 3) / 4;
const long long count = (long long)x_shape[0] * groups * positions * half;
auto grid = cg::this_grid();
for (long long i = grid.thread_rank(); i < count; i += grid.size()) {
  const int plane = i % half;
  const int position = i / half % positions;
  const int group = i / half / positions % groups;
  const int batch = i / half / positions / groups;
  const int from = offset[offset_shape[0] == 1 ? 0 : batch * offset_strides[0]];
  const float angle = scale * float(from + position) * (FREQUENCY(plane));
  const float c = cosf(angle), s = sinf(angle);
  const int first = traditional ? 2 * plane : plane;
  const int second = traditional ? 2 * plane + 1 : plane + half;
  const int end = group * 4 + 4 < heads ? group * 4 + 4 : heads;
  for (int head = group * 4; head < end; head++) {
    const T* in = x + batch * x_strides[0] + head * x_strides[1] + position * x_strides[2];
    T* to = out + (((long long)batch * heads + head) * positions + position) * columns;
    const float a = static_cast<float>(in[first * x_strides[3]]);
    const float b = static_cast<float>(in[second * x_strides[3]]);
    to[first] = static_cast<T>(a * c - b * s);
    to[second] = static_cast<T>(a * s + b * c);
    for (int rest = dims + plane; rest < columns; rest += half)
      to[rest] = in[rest * x_strides[3]];
  }
}
