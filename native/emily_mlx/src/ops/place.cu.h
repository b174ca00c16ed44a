// The place of an extreme of each row of x, [rows, columns], a block a row: the last NaN, or else the first of the greatest
// or `least` numbers, or the `last` of them.
constexpr int width = 16 / sizeof(T);
struct alignas(16) Piece {
  T of[width];
};
__shared__ float numbers[32];
__shared__ int places[32];
const int columns = x_shape[1];
const T* row = x + (long long)blockIdx.x * columns;

float best = 0.0f;
int place = -1;
auto meet = [&](float number, int at) {
  if (at < 0) return;
  const bool is_nan = number != number, was_nan = best != best;
  bool is_better = place < 0;
  if (!is_better && (is_nan || was_nan)) is_better = is_nan && (!was_nan || at > place);
  else if (!is_better && number == best) is_better = last ? at > place : at < place;
  else if (!is_better) is_better = least ? number < best : number > best;
  if (is_better) {
    best = number;
    place = at;
  }
};
// Whether a piece may have a better one.
auto is_new = [&](const Piece& piece) {
  float most = static_cast<float>(piece.of[0]);
  bool is_nan = false;
  for (int i = 0; i < width; i++) {
    const float number = static_cast<float>(piece.of[i]);
    is_nan = is_nan || number != number;
    most = least ? fminf(most, number) : fmaxf(most, number);
  }
  return is_nan || !(least ? most > best : most < best);
};
if (columns % width == 0 && reinterpret_cast<size_t>(row) % 16 == 0) {
  constexpr int ahead = 4;
  for (int base = 0; base < columns; base += ahead * width * blockDim.x) {
    Piece pieces[ahead];
    for (int a = 0; a < ahead; a++) {
      const int at = base + (a * blockDim.x + threadIdx.x) * width;
      pieces[a] = *reinterpret_cast<const Piece*>(row + (at < columns ? at : 0));
    }
    for (int a = 0; a < ahead; a++) {
      const int at = base + (a * blockDim.x + threadIdx.x) * width;
      if (at >= columns || (place >= 0 && !is_new(pieces[a]))) continue;
      for (int i = 0; i < width; i++) meet(static_cast<float>(pieces[a].of[i]), at + i);
    }
  }
} else {
  for (int at = threadIdx.x; at < columns; at += blockDim.x) meet(static_cast<float>(row[at]), at);
}
auto meet_lanes = [&]() {
  for (int o = 16; o > 0; o /= 2) {
    const float number = __shfl_xor_sync(0xffffffff, best, o);
    meet(number, __shfl_xor_sync(0xffffffff, place, o));
  }
};
meet_lanes();
if (threadIdx.x % 32 == 0) {
  numbers[threadIdx.x / 32] = best;
  places[threadIdx.x / 32] = place;
}
__syncthreads();
if (threadIdx.x < 32) {
  const bool is_there = threadIdx.x < blockDim.x / 32;
  best = is_there ? numbers[threadIdx.x] : 0.0f;
  place = is_there ? places[threadIdx.x] : -1;
  meet_lanes();
  if (threadIdx.x == 0) out[blockIdx.x] = place;
}
