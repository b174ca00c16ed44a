// Rows of x by the columns of a matrix: `gated` by the columns of another, `normed` by their root mean squares first,
// `summed` with what is added. What lies in a row of memory is read in pieces of 16 bytes: where the numbers of a column
// do, a warp takes a column, or `at_once`, and where those of a row do, a block takes some columns. The pieces of a part of
// the rows are on their way while the rows come to shared memory, behind whose barrier they are needed first. Sums are in
// f32; what would be an array in between is rounded as that would be.
constexpr int width = 16 / sizeof(T), matrices = gated ? 2 : 1, most_groups = 8;
constexpr int threads = rows == 1 ? 512 : 256, warps = threads / 32, ahead = rows == 1 && at_once == 1 ? 8 : 4;
constexpr int in_columns = ahead * 32 * width, in_rows = ahead * threads / 2;
constexpr int longest = in_columns > in_rows ? in_columns : in_rows;
struct alignas(16) Piece {
  T of[width];
};
__shared__ float in[rows][longest], parts[matrices][rows][warps][most_groups * width], square_parts[rows][warps];

const int inner = x_shape[1], columns = matrix_shape[1];
const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
const float eps = __int_as_float(eps_bits);
const T* of[2] = {matrix, other};
const long long row_steps[2] = {matrix_strides[0], other_strides[0]};
const long long column_steps[2] = {matrix_strides[1], other_strides[1]};

auto piece = [](const T* from, bool is_there) {
  Piece read;
  const uint4 bits = *reinterpret_cast<const uint4*>(from);
  *reinterpret_cast<uint4*>(&read) = is_there ? bits : make_uint4(0, 0, 0, 0);
  return read;
};
auto rounded = [](float value) { return static_cast<float>(static_cast<T>(value)); };
auto is_aligned = [](const T* at, long long step) { return reinterpret_cast<size_t>(at) % 16 == 0 && step % width == 0; };

float squares[rows] = {};
// A part of the rows of x, by the norm's weights; what is behind their ends is 0.
auto bring = [&](int base, int count) {
  if (base == 0) {
    for (int row = 0; row < rows; row++) squares[row] = 0.0f;
  }
  for (int at = threadIdx.x; at < count; at += threads) {
    const int k = base + at;
    for (int row = 0; row < rows; row++) {
      float value = k < inner ? static_cast<float>(x[row * x_strides[0] + k * x_strides[1]]) : 0.0f;
      squares[row] += value * value;
      if (normed && k < inner) value *= static_cast<float>(weight[k * weight_strides[0]]);
      in[row][at] = value;
    }
  }
  if (normed) {
    for (int row = 0; row < rows; row++) {
      float square = squares[row];
      for (int o = 16; o > 0; o /= 2) square += __shfl_xor_sync(0xffffffff, square, o);
      if (lane == 0) square_parts[row][warp] = square;
    }
  }
};
auto give = [&](int row, int column, float first, float second) {
  float scale = 1.0f;
  if (normed) {
    float square = 0.0f;
    for (int w = 0; w < warps; w++) square += square_parts[row][w];
    scale = rsqrtf(square / inner + eps);
  }
  float value = rounded(first * scale);
  if (gated) {
    const float g = value;
    value = activated(g) * rounded(second * scale);
  }
  if (summed) value += static_cast<float>(added[row * added_strides[0] + column * added_strides[1]]);
  out[(long long)row * columns + column] = static_cast<T>(value);
};

bool columns_in_a_row = inner % width == 0, rows_in_a_row = columns % width == 0;
for (int m = 0; m < matrices; m++) {
  columns_in_a_row = columns_in_a_row && row_steps[m] == 1 && is_aligned(of[m], column_steps[m]);
  rows_in_a_row = rows_in_a_row && column_steps[m] == 1 && is_aligned(of[m], row_steps[m]);
}

if (rows_in_a_row) {
  const int groups = columns > 4096 ? most_groups : 2;
  const int group = threadIdx.x % groups, split = threadIdx.x / groups, splits = threads / groups;
  const int at_a_time = ahead * splits;
  for (int from = blockIdx.x * groups * width; from < columns; from += gridDim.x * groups * width) {
    // What is beyond the last column is read of the first instead, and given to nobody.
    const int column = from + group * width < columns ? from + group * width : from;
    float sums[matrices][rows][width] = {};
    for (int base = 0; base < inner; base += at_a_time) {
      Piece pieces[ahead][matrices];
      for (int a = 0; a < ahead; a++) {
        const int k = base + a * splits + split;
        for (int m = 0; m < matrices; m++)
          pieces[a][m] = piece(of[m] + (k < inner ? k : 0) * row_steps[m] + column, k < inner);
      }
      if (base > 0) __syncthreads();
      if (inner > at_a_time || from == blockIdx.x * groups * width) bring(base, at_a_time);
      __syncthreads();
      for (int a = 0; a < ahead; a++) {
        for (int row = 0; row < rows; row++) {
          const float value = in[row][a * splits + split];
          for (int m = 0; m < matrices; m++) {
            for (int i = 0; i < width; i++) sums[m][row][i] += value * static_cast<float>(pieces[a][m].of[i]);
          }
        }
      }
    }
    for (int row = 0; row < rows; row++) {
      for (int m = 0; m < matrices; m++) {
        for (int i = 0; i < width; i++) {
          float sum = sums[m][row][i];
          for (int o = 16; o >= groups; o /= 2) sum += __shfl_xor_sync(0xffffffff, sum, o);
          if (lane < groups) parts[m][row][warp][group * width + i] = sum;
        }
      }
    }
    __syncthreads();
    for (int at = threadIdx.x; at < rows * groups * width; at += threads) {
      const int row = at / (groups * width), c = at % (groups * width);
      float total[2] = {};
      for (int w = 0; w < warps; w++) {
        for (int m = 0; m < matrices; m++) total[m] += parts[m][row][w][c];
      }
      if (from + c < columns) give(row, from + c, total[0], total[1]);
    }
    if (inner > at_a_time) __syncthreads();
  }
} else {
  constexpr int taken = matrices * at_once;
  const int step = gridDim.x * warps * at_once;
  for (int first = blockIdx.x * warps * at_once; first < columns; first += step) {
    const int column = first + warp * at_once;
    const T* from[taken];
    for (int t = 0; t < taken; t++)
      from[t] = of[t / at_once] + (column + t % at_once < columns ? column + t % at_once : 0) * column_steps[t / at_once];
    float sums[taken][rows] = {};
    for (int base = 0; base < inner; base += in_columns) {
      const bool is_to_come = inner > in_columns || first == blockIdx.x * warps * at_once;
      if (columns_in_a_row) {
        Piece pieces[ahead][taken];
        for (int a = 0; a < ahead; a++) {
          const int k = base + (a * 32 + lane) * width;
          for (int t = 0; t < taken; t++) pieces[a][t] = piece(from[t] + (k < inner ? k : 0), k < inner);
        }
        if (base > 0) __syncthreads();
        if (is_to_come) bring(base, in_columns);
        __syncthreads();
        for (int a = 0; a < ahead; a++) {
          for (int row = 0; row < rows; row++) {
            for (int i = 0; i < width; i++) {
              const float value = in[row][(a * 32 + lane) * width + i];
              for (int t = 0; t < taken; t++) sums[t][row] += value * static_cast<float>(pieces[a][t].of[i]);
            }
          }
        }
      } else {
        if (base > 0) __syncthreads();
        if (is_to_come) bring(base, in_columns);
        __syncthreads();
        for (int k = lane; k < in_columns && base + k < inner; k += 32) {
          for (int row = 0; row < rows; row++) {
            for (int t = 0; t < taken; t++)
              sums[t][row] += in[row][k] * static_cast<float>(from[t][(base + k) * row_steps[t / at_once]]);
          }
        }
      }
    }
    for (int row = 0; row < rows; row++) {
      for (int t = 0; t < taken; t++) {
        for (int o = 16; o > 0; o /= 2) sums[t][row] += __shfl_xor_sync(0xffffffff, sums[t][row], o);
      }
      for (int c = 0; c < at_once; c++) {
        if (lane == c && column + c < columns) give(row, column + c, sums[c][row], sums[taken - at_once + c][row]);
      }
    }
    if (inner > in_columns) __syncthreads();
  }
}
