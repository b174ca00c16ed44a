// The angle by which a position turns a plane. FREQUENCY(plane), which may read periods, with periods_strides, is what a
// position is multiplied by.
constexpr int half = dims / 2;
const float by = (backwards ? -1.0f : 1.0f) * __int_as_float(scale_bits);
auto angle = [&](int position, int plane) { return by * float(position) * (FREQUENCY(plane)); };
