// Rows of x by the columns of a matrix: `gated` by the columns of another, `normed` by their root mean squares first,
// `summed` with what is added. What lies in a row of memory is read in pieces of 16 bytes, several before the first is
// needed: where the numbers of a column do, a warp takes a column, and where those of a row do, a block takes some
// columns. Sums are in f32; what would be an array in between is rounded as that would be.
constexpr int width = 16 / sizeof(T), ahead = 4, matrices = gated ? 2 : 1, most_warps = 8, most_groups = 8;
struct alignas(16) Piece {
  T of[width];
};
__shared__ float parts[matrices][rows][most_warps][most_groups * width], square_parts[rows][most_warps];

const int inner = x_shape[1], columns = matrix_shape[1];
const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
const float eps = __int_as_float(eps_bits);
const T* of[2] = {matrix, other};
const long long row_steps[2] = {matrix_strides[0], other_strides[0]};
const long long column_steps[2] = {matrix_strides[1], other_strides[1]};

auto piece = [](const T* from, bool is_there) {
  Piece read;
  if (is_there) {
    *reinterpret_cast<uint4*>(&read) = *reinterpret_cast<const uint4*>(from);
  } else {
    *reinterpret_cast<uint4*>(&read) = make_uint4(0, 0, 0, 0);
  }
  return read;
};
auto rounded = [](float value) { return static_cast<float>(static_cast<T>(value)); };
auto is_aligned = [](const T* at, long long step) { return reinterpret_cast<size_t>(at) % 16 == 0 && step % width == 0; };
auto give = [&](int row, int column, float first, float second, float square) {
  const float scale = normed ? rsqrtf(square / inner + eps) : 1.0f;
  float value = rounded(first * scale);
  if (gated) {
    const float g = value;
    value = activated(g) * rounded(second * scale);
  }
  if (summed) value += static_cast<float>(added[row * added_strides[0] + column * added_strides[1]]);
  out[(long long)row * columns + column] = static_cast<T>(value);
};

bool columns_in_a_row = inner % width == 0 && x_strides[1] == 1 && is_aligned(x, x_strides[0]);
if (normed) columns_in_a_row = columns_in_a_row && weight_strides[0] == 1 && is_aligned(weight, 0);
bool rows_in_a_row = columns % width == 0;
for (int m = 0; m < matrices; m++) {
  columns_in_a_row = columns_in_a_row && row_steps[m] == 1 && is_aligned(of[m], column_steps[m]);
  rows_in_a_row = rows_in_a_row && column_steps[m] == 1 && is_aligned(of[m], row_steps[m]);
}

if (rows_in_a_row) {
  const int groups = columns > 4096 ? most_groups : 2;
  const int group = threadIdx.x % groups, split = threadIdx.x / groups, splits = blockDim.x / groups;
  for (int from = blockIdx.x * groups * width; from < columns; from += gridDim.x * groups * width) {
    const int column = from + group * width;
    float sums[matrices][rows][width] = {}, squares[rows] = {};
    for (int base = split; base < inner; base += ahead * splits) {
      Piece pieces[ahead][matrices];
      float in[ahead][rows], by[ahead];
      for (int a = 0; a < ahead; a++) {
        const int k = base + a * splits;
        for (int m = 0; m < matrices; m++)
          pieces[a][m] = piece(of[m] + k * row_steps[m] + column, k < inner && column < columns);
        for (int row = 0; row < rows; row++)
          in[a][row] = k < inner ? static_cast<float>(x[row * x_strides[0] + k * x_strides[1]]) : 0.0f;
        by[a] = normed && k < inner ? static_cast<float>(weight[k * weight_strides[0]]) : 1.0f;
      }
      for (int a = 0; a < ahead; a++) {
        for (int row = 0; row < rows; row++) {
          squares[row] += in[a][row] * in[a][row];
          const float value = in[a][row] * by[a];
          for (int m = 0; m < matrices; m++) {
            for (int i = 0; i < width; i++) sums[m][row][i] += value * static_cast<float>(pieces[a][m].of[i]);
          }
        }
      }
    }
    for (int o = 16; o >= groups; o /= 2) {
      for (int row = 0; row < rows; row++) {
        squares[row] += __shfl_xor_sync(0xffffffff, squares[row], o);
        for (int m = 0; m < matrices; m++) {
          for (int i = 0; i < width; i++) sums[m][row][i] += __shfl_xor_sync(0xffffffff, sums[m][row][i], o);
        }
      }
    }
    for (int row = 0; row < rows; row++) {
      if (lane == 0) square_parts[row][warp] = squares[row];
      for (int m = 0; m < matrices; m++) {
        for (int i = 0; i < width; i++) {
          if (lane < groups) parts[m][row][warp][group * width + i] = sums[m][row][i];
        }
      }
    }
    __syncthreads();
    for (int at = threadIdx.x; at < rows * groups * width; at += blockDim.x) {
      const int row = at / (groups * width), c = at % (groups * width);
      float square = 0.0f, total[2] = {};
      for (int w = 0; w < warps; w++) {
        square += square_parts[row][w];
        for (int m = 0; m < matrices; m++) total[m] += parts[m][row][w][c];
      }
      if (from + c < columns) give(row, from + c, total[0], total[1], square);
    }
    __syncthreads();
  }
} else {
  for (int column = blockIdx.x * warps + warp; column < columns; column += gridDim.x * warps) {
    float sums[matrices][rows] = {}, squares[rows] = {};
    if (columns_in_a_row) {
      for (int base = lane * width; base < inner; base += ahead * 32 * width) {
        Piece pieces[ahead][matrices], in[ahead][rows], by[ahead];
        for (int a = 0; a < ahead; a++) {
          const int k = base + a * 32 * width;
          for (int m = 0; m < matrices; m++) pieces[a][m] = piece(of[m] + column * column_steps[m] + k, k < inner);
          for (int row = 0; row < rows; row++) in[a][row] = piece(x + row * x_strides[0] + k, k < inner);
          if (normed) by[a] = piece(weight + k, k < inner);
        }
        for (int a = 0; a < ahead; a++) {
          for (int row = 0; row < rows; row++) {
            for (int i = 0; i < width; i++) {
              float value = static_cast<float>(in[a][row].of[i]);
              squares[row] += value * value;
              if (normed) value *= static_cast<float>(by[a].of[i]);
              for (int m = 0; m < matrices; m++) sums[m][row] += value * static_cast<float>(pieces[a][m].of[i]);
            }
          }
        }
      }
    } else {
      for (int k = lane; k < inner; k += 32) {
        for (int row = 0; row < rows; row++) {
          float value = static_cast<float>(x[row * x_strides[0] + k * x_strides[1]]);
          squares[row] += value * value;
          if (normed) value *= static_cast<float>(weight[k * weight_strides[0]]);
          for (int m = 0; m < matrices; m++)
            sums[m][row] += value * static_cast<float>(of[m][k * row_steps[m] + column * column_steps[m]]);
        }
      }
    }
    for (int row = 0; row < rows; row++) {
      for (int o = 16; o > 0; o /= 2) {
        squares[row] += __shfl_xor_sync(0xffffffff, squares[row], o);
        for (int m = 0; m < matrices; m++) sums[m][row] += __shfl_xor_sync(0xffffffff, sums[m][row], o);
      }
      if (lane == 0) give(row, column, sums[0][row], gated ? sums[matrices - 1][row] : 0.0f, squares[row]);
    }
  }
}
