// What the C library has in vectors; its header says so under -ffast-math only, which would lose NaN.
#pragma once

#define VECTOR __attribute__((simd("notinbranch")))
extern "C" {
VECTOR double expm1(double) noexcept;
VECTOR double log(double) noexcept;
VECTOR double log1p(double) noexcept;
VECTOR double log2(double) noexcept;
VECTOR double log10(double) noexcept;
VECTOR double sin(double) noexcept;
VECTOR double cos(double) noexcept;
VECTOR double tan(double) noexcept;
VECTOR double asin(double) noexcept;
VECTOR double acos(double) noexcept;
VECTOR double atan(double) noexcept;
VECTOR double sinh(double) noexcept;
VECTOR double cosh(double) noexcept;
VECTOR double tanh(double) noexcept;
VECTOR double asinh(double) noexcept;
VECTOR double acosh(double) noexcept;
VECTOR double atanh(double) noexcept;
VECTOR double erf(double) noexcept;
VECTOR double cbrt(double) noexcept;
VECTOR double pow(double, double) noexcept;
VECTOR double atan2(double, double) noexcept;
}
#undef VECTOR
