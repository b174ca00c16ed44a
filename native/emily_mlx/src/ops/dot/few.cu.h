// Rows of x by the columns of a matrix: `gated` by the columns of another, `normed` by their root mean squares first,
// `summed` with what is added, `turned` by the angles of one position, each head's first half of columns with its second.
// What lies in a row of memory is read in pieces of 16 bytes: where the numbers of a column
// do, a warp takes a column, and where those of a row do, a block takes some columns. Sums are in f32; what would be an
// array in between is rounded as that would be.
auto piece = [](const T* from) { return *reinterpret_cast<const Piece*>(from); };
auto rounded = [](float value) { return static_cast<float>(static_cast<T>(value)); };
// What a number of the result needs behind the sums, which is read early: what is added, and the angle.
struct Late {
  float added, angle;
};
auto later = [&](int row, int column) {
  Late late{};
  if (summed) late.added = static_cast<float>(added[row * added_strides[0] + column * added_strides[1]]);
#ifdef TURNED
  late.angle = angle(offset[0], column % half);
#endif
  return late;
};
auto give = [&](int row, int column, const float* sums, float square, Late late) {
  const float scale = normed ? rsqrtf(square / inner + __int_as_float(eps_bits)) : 1.0f;
  float value = rounded(sums[0] * scale);
#ifdef TURNED
  const float second = rounded(sums[1] * scale), c = cosf(late.angle), s = sinf(late.angle);
  out[(long long)row * columns + column + half] = static_cast<T>(value * s + second * c);
  value = value * c - second * s;
#endif
  if (gated) {
    const float g = value;
    value = activated(g) * rounded(sums[matrices - 1] * scale);
  }
  if (summed) value += late.added;
  out[(long long)row * columns + column] = static_cast<T>(value);
};

bool columns_in_a_row = inner % width == 0 && x_strides[1] == 1 && is_aligned(x, x_strides[0]);
if (normed) columns_in_a_row = columns_in_a_row && weight_strides[0] == 1 && is_aligned(weight, 0);
for (int m = 0; m < matrices; m++) columns_in_a_row = columns_in_a_row && row_steps[m] == 1 && is_aligned(of[m], column_steps[m]);

if (rows_in_a_row) {
  __shared__ float parts[rows][warps][groups * width][matrices], square_parts[rows][warps];
  const int group = threadIdx.x % groups, split = threadIdx.x / groups;
  const int its_row = threadIdx.x / (groups * width), its_column = threadIdx.x % (groups * width);
  for (int from = blockIdx.x * groups * width; from < count; from += gridDim.x * groups * width) {
    const bool gives = its_row < rows && from + its_column < count;
    const Late late = gives ? later(its_row, place(from + its_column)) : Late{};
    float sums[matrices][rows][width] = {}, squares[rows] = {};
    // What is beyond the last column is read of the first instead, and given to nobody.
    const int column = place(from + group * width < count ? from + group * width : from);
#pragma unroll 4
    for (int k = split; k < inner; k += splits) {
      Piece pieces[matrices];
      for (int m = 0; m < matrices; m++) pieces[m] = piece(of[m] + k * row_steps[m] + column);
      const float by = normed ? static_cast<float>(weight[k * weight_strides[0]]) : 1.0f;
      for (int row = 0; row < rows; row++) {
        const float number = static_cast<float>(x[row * x_strides[0] + k * x_strides[1]]), value = number * by;
        squares[row] += number * number;
        for (int m = 0; m < matrices; m++) {
          for (int i = 0; i < width; i++) sums[m][row][i] += value * static_cast<float>(pieces[m].of[i]);
        }
      }
    }
    for (int row = 0; row < rows; row++) {
      for (int o = 16; o >= groups; o /= 2) {
        if (normed) squares[row] += __shfl_xor_sync(0xffffffff, squares[row], o);
        for (int m = 0; m < matrices; m++) {
          for (int i = 0; i < width; i++) sums[m][row][i] += __shfl_xor_sync(0xffffffff, sums[m][row][i], o);
        }
      }
      if (lane == 0) square_parts[row][warp] = squares[row];
      for (int m = 0; m < matrices; m++) {
        for (int i = 0; i < width; i++) {
          if (lane < groups) parts[row][warp][group * width + i][m] = sums[m][row][i];
        }
      }
    }
    __syncthreads();
    if (gives) {
      float totals[matrices] = {}, square = 0.0f;
      for (int w = 0; w < warps; w++) {
        if (normed) square += square_parts[its_row][w];
        for (int m = 0; m < matrices; m++) totals[m] += parts[its_row][w][its_column][m];
      }
      give(its_row, place(from + its_column), totals, square, late);
    }
    __syncthreads();
  }
} else {
  for (int from_column = blockIdx.x * warps + warp; from_column < count; from_column += gridDim.x * warps) {
    const int column = place(from_column);
    const T* from[matrices];
    for (int m = 0; m < matrices; m++) from[m] = of[m] + column * column_steps[m];
    float sums[rows][matrices] = {}, squares[rows] = {};
    Late late[rows];
    for (int row = 0; row < rows; row++) late[row] = lane == 0 ? later(row, column) : Late{};
    if (columns_in_a_row) {
#pragma unroll 4
      for (int k = lane * width; k < inner; k += 32 * width) {
        Piece pieces[matrices], by;
        for (int m = 0; m < matrices; m++) pieces[m] = piece(from[m] + k);
        if (normed) by = piece(weight + k);
        for (int row = 0; row < rows; row++) {
          const Piece numbers = piece(x + row * x_strides[0] + k);
          for (int i = 0; i < width; i++) {
            float value = static_cast<float>(numbers.of[i]);
            squares[row] += value * value;
            if (normed) value *= static_cast<float>(by.of[i]);
            for (int m = 0; m < matrices; m++) sums[row][m] += value * static_cast<float>(pieces[m].of[i]);
          }
        }
      }
    } else {
      for (int k = lane; k < inner; k += 32) {
        for (int row = 0; row < rows; row++) {
          float value = static_cast<float>(x[row * x_strides[0] + k * x_strides[1]]);
          squares[row] += value * value;
          if (normed) value *= static_cast<float>(weight[k * weight_strides[0]]);
          for (int m = 0; m < matrices; m++) sums[row][m] += value * static_cast<float>(from[m][k * row_steps[m]]);
        }
      }
    }
    for (int row = 0; row < rows; row++) {
      for (int o = 16; o > 0; o /= 2) {
        if (normed) squares[row] += __shfl_xor_sync(0xffffffff, squares[row], o);
        for (int m = 0; m < matrices; m++) sums[row][m] += __shfl_xor_sync(0xffffffff, sums[row][m], o);
      }
      if (lane == 0) give(row, column, sums[row], squares[row], late[row]);
    }
  }
}
