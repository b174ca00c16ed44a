// Where the numbers of the matrices lie, and what a block reads first of them, on its way to the near cache.
constexpr int width = 16 / sizeof(T), matrices = gated || turned ? 2 : 1, warps = threads / 32, splits = threads / groups;
struct alignas(16) Piece {
  T of[width];
};
const int inner = x_shape[1], columns = matrix_shape[1];
const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
const T* of[2] = {matrix, turned ? matrix + half * matrix_strides[1] : other};
const long long row_steps[2] = {matrix_strides[0], turned ? matrix_strides[0] : other_strides[0]};
const long long column_steps[2] = {matrix_strides[1], turned ? matrix_strides[1] : other_strides[1]};
// The columns that sums are taken of, and where these are.
const int count = turned ? columns / 2 : columns;
auto place = [](int column) { return turned ? column / half * 2 * half + column % half : column; };
auto is_aligned = [](const T* at, long long step) { return reinterpret_cast<size_t>(at) % 16 == 0 && step % width == 0; };

bool rows_in_a_row = (turned ? half : columns) % width == 0;
for (int m = 0; m < matrices; m++) rows_in_a_row = rows_in_a_row && column_steps[m] == 1 && is_aligned(of[m], row_steps[m]);

auto fetch = [](const T* at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at)); };
// What comes at a time. Of a large matrix the way takes longer than what is waited for, and is taken once.
constexpr int line = 128 / sizeof(T);
const bool is_small = (long long)inner * columns <= 1 << 21;
for (int m = 0; m < matrices; m++) {
  const int first = rows_in_a_row ? blockIdx.x * groups * width : blockIdx.x * warps + warp;
  if (first >= count || !is_small) break;
  const T* from = of[m] + place(first) * column_steps[m];
  if (rows_in_a_row) {
    for (int k = threadIdx.x; k < inner; k += threads) fetch(from + k * row_steps[m]);
  } else if (row_steps[m] == 1) {
    for (int k = lane * line; k < inner; k += 32 * line) fetch(from + k);
  }
}
