"""Writes ../src/math/coefficients.rs: the polynomials of `math`, by Remez' exchange in numbers of 60 digits.

Run it with `python coefficients.py`, then `cargo fmt`; it needs mpmath. Each polynomial has the lowest degree whose
greatest weighted error is below the bound that its line asks for, and stands with its error in front of it.
"""

import pathlib

from mpmath import mp, mpf

mp.dps = 60
LONG = mpf(2) ** -57
SHORT = mpf(2) ** -37


def remez(function, weight, low, high, degree):
    """Coefficients from the constant on, and the greatest |weight (polynomial - function)| on [low, high]."""
    points = 30 * (degree + 2)
    middle, half = (low + high) / 2, (high - low) / 2
    grid = [middle - half * mp.cos(mp.pi * i / points) for i in range(points + 1)]
    wanted = [function(x) for x in grid]
    weights = [weight(x) for x in grid]
    places = [round(points * (i + mpf(0)) / (degree + 1)) for i in range(degree + 2)]
    places = [min(max(p, 1), points - 1) if weights[p] == 0 else p for p in places]
    for _ in range(30):
        rows = mp.matrix(degree + 2, degree + 2)
        right = mp.matrix(degree + 2, 1)
        for row, place in enumerate(places):
            scaled = (grid[place] - middle) / half
            for column in range(degree + 1):
                rows[row, column] = scaled**column
            rows[row, degree + 1] = (-1) ** row / weights[place]
            right[row] = wanted[place]
        solution = mp.lu_solve(rows, right)
        polynomial = [solution[i] for i in range(degree + 1)]
        errors = [
            w * (mp.polyval(polynomial[::-1], (x - middle) / half) - y) for x, y, w in zip(grid, wanted, weights)
        ]
        extremes = []
        for place, error in enumerate(errors):
            if extremes and (errors[extremes[-1]] > 0) == (error > 0):
                if abs(error) > abs(errors[extremes[-1]]):
                    extremes[-1] = place
            else:
                extremes.append(place)
        while len(extremes) > degree + 2:
            extremes.pop(0 if abs(errors[extremes[0]]) < abs(errors[extremes[-1]]) else -1)
        if len(extremes) < degree + 2:
            raise ValueError("the errors do not alternate")
        if extremes == places:
            break
        places = extremes
    return shifted(polynomial, middle, half), max(abs(e) for e in errors)


def shifted(scaled, middle, half):
    """The coefficients in x of a polynomial in (x - middle) / half."""
    result = [mpf(0)]
    for coefficient in reversed(scaled):
        grown = [mpf(0)] * (len(result) + 1)
        for i, r in enumerate(result):
            grown[i] -= r * middle / half
            grown[i + 1] += r / half
        grown[0] += coefficient
        result = grown
    return result[: len(scaled)]


lines = []


def write(name, coefficients, about):
    lines.append(f"/// {about}")
    lines.append(f"pub(super) const {name}: [f64; {len(coefficients)}] = [")
    lines.extend(f"    {literal(c)}," for c in coefficients)
    lines.append("];\n")


def literal(x):
    return repr(float(x))


def fit(name, about, function, weight, low, high, bound, start=2):
    low, high = mpf(low), mpf(high)
    degree = start
    while True:
        try:
            coefficients, error = remez(function, weight, low, high, degree)
        except (ValueError, ZeroDivisionError):
            error = mpf(1)
        if error < bound:
            break
        degree += 1
    about = f"{about} Error 2^{float(mp.log(error, 2)):.1f}."
    print(name, len(coefficients), about, flush=True)
    write(name, coefficients, about)


def both(name, about, function, weight, low, high, start=2):
    fit(name + "_LONG", about, function, weight, low, high, LONG, start + 2)
    fit(name, about, function, weight, low, high, SHORT, start)


def taylor(series, closed, near=mpf("1e-6")):
    """`closed`, or near zero the sum of `series` (coefficients from the constant on)."""
    return lambda x: mp.polyval(series[::-1], x) if abs(x) < near else closed(x)


def odd(series, function):
    """(function(x) / x - 1) / x^2 of z = x^2, and the weight that makes its error relative to the function's."""
    g = taylor(series, lambda z: (function(mp.sqrt(z)) / mp.sqrt(z) - 1) / z)
    return g, lambda z: z / (1 + z * g(z)) + mpf("1e-4")


F = mp.factorial
half_ln2 = mp.log(2) / 2 * mpf("1.0001")

g = taylor([1 / F(k + 2) for k in range(8)], lambda r: (mp.expm1(r) - r) / r**2)
both("EXP", "(e^r - 1 - r) / r^2, |r| <= ln 2 / 2.", g, lambda r: abs(r / (1 + r * g(r))) + mpf("1e-4"), -half_ln2, half_ln2)

p = taylor([mp.log(2) ** (k + 1) / F(k + 1) for k in range(8)], lambda f: mp.expm1(f * mp.log(2)) / f)
both("EXP2", "(2^f - 1) / f, |f| <= 1/2.", p, lambda f: abs(f) / 2**f + mpf("1e-4"), "-0.5001", "0.5001")

low, high = mp.sqrt(0.5) - 1 - mpf("1e-9"), mp.sqrt(2) - 1 + mpf("1e-9")
g = taylor([mpf(1) / 3, -mpf(1) / 4, mpf(1) / 5, -mpf(1) / 6, mpf(1) / 7, -mpf(1) / 8, mpf(1) / 9, -mpf(1) / 10],
           lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3)
fit("LOG_LONG", "(log(1 + f) - f + f^2 / 2) / f^3, sqrt(1/2) <= 1 + f <= sqrt(2).", g,
    lambda f: f**2 / (1 - f / 2 + f**2 * g(f)) + mpf("1e-4"), low, high, LONG, 12)
h = lambda f: -mpf(1) / 2 + f * g(f)
fit("LOG", "(log(1 + f) - f) / f^2, sqrt(1/2) <= 1 + f <= sqrt(2).", h,
    lambda f: abs(f) / (1 + f * h(f)) + mpf("1e-4"), low, high, SHORT, 8)
for name, base in (("LOG2", 2), ("LOG10", 10)):
    fit(name + "_LONG", f"(log_{base}(1 + f) ln {base} - f) / f^2 / ln {base}, sqrt(1/2) <= 1 + f <= sqrt(2).",
        lambda f: h(f) / mp.log(base), lambda f: mp.log(base) * (abs(f) / (1 + f * h(f)) + mpf("1e-4")), low, high,
        LONG, 14)
fit("LOG2_POWER", "(log_2(1 + f) ln 2 - f) / f^2 / ln 2, sqrt(1/2) <= 1 + f <= sqrt(2).",
    lambda f: h(f) / mp.log(2), lambda f: mp.log(2) * (abs(f) / (1 + f * h(f)) + mpf("1e-4")), low, high,
    mpf(2) ** -46, 13)
r = taylor([mpf(2) / (2 * k + 5) for k in range(8)],
           lambda z: (2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 2 - 2 * z / 3) / z**2)
fit("LOG_RATIO", "(log((1 + s) / (1 - s)) / s - 2 - 2 s^2 / 3) / s^4 of s^2, s <= (sqrt(2) - 1) / (sqrt(2) + 1).", r,
    lambda z: z**2 / 2 + mpf("1e-7"), 0, ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2 + mpf("1e-9"), mpf(2) ** -68, 4)

series = [(-1) ** (k + 1) / F(2 * k + 3) for k in range(8)]
fit("SIN", "(sin(r) / r - 1) / r^2 of r^2, |r| <= pi / 2.", *odd(series, mp.sin), 0, (mp.pi / 2) ** 2 + mpf("1e-3"), SHORT)
quarter = (mp.pi / 4) ** 2 + mpf("1e-4")
both("SIN_QUARTER", "(sin(r) / r - 1) / r^2 of r^2, |r| <= pi / 4.", *odd(series, mp.sin), 0, quarter)
g = taylor([(-1) ** (k + 1) / F(2 * k + 2) for k in range(8)], lambda z: (mp.cos(mp.sqrt(z)) - 1) / z)
fit("COS_QUARTER", "(cos(r) - 1) / r^2 of r^2, |r| <= pi / 4.", g, lambda z: z + mpf("1e-4"), 0, quarter, SHORT)
g = taylor([(-1) ** k / F(2 * k + 4) for k in range(8)], lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2)
fit("COS_QUARTER_LONG", "(cos(r) - 1 + r^2 / 2) / r^4 of r^2, |r| <= pi / 4.", g, lambda z: z**2 + mpf("1e-4"), 0, quarter, LONG)
tan = mp.taylor(lambda x: mp.tan(x), 0, 17)[3::2]
fit("TAN_LONG", "(tan(r) / r - 1) / r^2 of r^2, |r| <= pi / 4.", *odd(tan, mp.tan), 0, quarter, LONG, 8)
asin = mp.taylor(lambda x: mp.asin(x), 0, 17)[3::2]
both("ASIN", "(asin(x) / x - 1) / x^2 of x^2, |x| <= 1/2.", *odd(asin, mp.asin), 0, mpf("0.2501"), 4)
atan = [(-1) ** (k + 1) / mpf(2 * k + 3) for k in range(8)]
both("ATAN", "(atan(t) / t - 1) / t^2 of t^2, |t| <= sqrt(2) - 1.", *odd(atan, mp.atan), 0,
     (mp.sqrt(2) - 1) ** 2 + mpf("1e-6"), 4)

z = half_ln2**2
both("SINH", "(sinh(r) / r - 1) / r^2 of r^2, |r| <= ln 2 / 2.", *odd([1 / F(2 * k + 3) for k in range(6)], mp.sinh), 0, z, 1)
g = taylor([1 / F(2 * k + 2) for k in range(6)], lambda z: (mp.cosh(mp.sqrt(z)) - 1) / z)
both("COSH", "(cosh(r) - 1) / r^2 of r^2, |r| <= ln 2 / 2.", g, lambda z: z + mpf("1e-4"), 0, z, 1)

fit("CBRT_INVERSE", "m^(-1/3), 1 <= m <= 2.", lambda m: m ** (-mpf(1) / 3), lambda m: m ** (mpf(1) / 3), 1, 2, mpf(2) ** -14)

erf = mp.taylor(lambda x: mp.erf(x), 0, 17)[1::2]
erf[0] -= 1
g = taylor(erf, lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1)
fit("ERF_LONG", "erf(x) / x - 1 of x^2, |x| <= 1.", g, lambda z: 1 / (1 + g(z)), 0, mpf("1.0001"), LONG, 6)
fit("ERF", "erf(x) / x of u = x^2 / 8 - 1, |x| <= 4.",
    lambda u: 1 + g(8 * (u + 1)), lambda u: 1 / (1 + g(8 * (u + 1))), -1, 1, mpf(2) ** -36, 10)


def scaled_tail(x):
    return mp.exp(x * x) * mp.erfc(x) * x if x < 25 else mp.hyp2f0(1, mpf(1) / 2, -1 / x**2) / mp.sqrt(mp.pi)


inverse_sqrt_pi = 1 / mp.sqrt(mp.pi)
fit("ERFC_LONG", "erfc(x) x e^(x^2) - 1 / sqrt(pi) of w = 2 / (x + 2) - 1/3, x >= 0.75.",
    lambda w: scaled_tail(2 / (w + mpf(1) / 3) - 2) - inverse_sqrt_pi, lambda w: mpf(2), 2 / mpf(30) - mpf(1) / 3,
    2 / mpf("2.75") - mpf(1) / 3, LONG, 20)


def erfinv(w):
    """erf_inv(x) / x of w = -log(1 - x^2)."""
    if w < mpf("1e-12"):
        return mp.sqrt(mp.pi) / 2 * (1 + mp.pi / 12 * w)
    x2 = -mp.expm1(-w)
    x = mp.sqrt(x2)
    rest = mp.exp(-w) / (1 + x)
    y = mp.erfinv(x) if w < 3 else mp.sqrt(mp.log(1 / rest) - mp.log(mp.log(1 / rest) + 1) / 2 + mpf("0.1"))
    for _ in range(7):
        y += (mp.erfc(y) - rest) * mp.sqrt(mp.pi) / 2 * mp.exp(y * y)
    return y / x


def inverse(name, place, low, high, bound, start, root=True):
    """erf_inv(x) / x where w = -log(1 - x^2) is from `low` to `high`, of w or its root less `place`."""
    w = lambda v: max((v + place) ** 2 if root else v + place, mpf(0))
    low, high = (mp.sqrt(low), mp.sqrt(high)) if root else (mpf(low), mpf(high))
    variable = ("sqrt(w)" if root else "w") + (f" - {place}" if place else "")
    about = f"erf_inv(x) / x of {variable}, w = -log(1 - x^2), {float(low):.2f} to {float(high):.2f}."
    fit(name, about, lambda v: erfinv(w(v)), lambda v: 1 / erfinv(w(v)), low - place, high - place, bound, start)


inverse("ERFINV_NEAR_LONG", 1.0, 0, 6.25, LONG, 20, root=False)
inverse("ERFINV_MIDDLE_LONG", 3.25, 6.25, 16, LONG, 17)
inverse("ERFINV_FAR_LONG", 5.0, 16, 37, LONG, 15)
inverse("ERFINV_NEAR", 0.0, 0, 5, mpf(2) ** -34, 11, root=False)
inverse("ERFINV_FAR", 3.25, 5, 17, mpf(2) ** -34, 12)


def split(name, about, value, bits):
    """`value` in parts of so many bits each, and the rest."""
    parts = []
    for count in bits:
        scale = mpf(2) ** (count - 1 - int(mp.floor(mp.log(abs(value), 2))))
        parts.append(mp.nint(value * scale) / scale)
        value -= parts[-1]
    write(name, parts, about)


split("LN_2", "ln 2, the first part short enough for exact products of exponents.", mp.log(2), [41, 53])
split("LOG10_2", "The same of log10(2).", mp.log10(2), [41, 53])
split("INVERSE_LN_2", "1 / ln 2.", 1 / mp.log(2), [53, 53])
split("INVERSE_LN_10", "1 / ln 10.", 1 / mp.log(10), [53, 53])
split("HALF_PI", "pi / 2.", mp.pi / 2, [53, 53])
split("HALF_PI_PARTS", "pi / 2, the first three short enough for exact products of 20 bits.", mp.pi / 2, [33, 33, 33, 53])
split("INVERSE_ROOT_OF_PI", "1 / sqrt(pi).", inverse_sqrt_pi, [53, 53])
split("TWO_THIRDS", "2 / 3.", mpf(2) / 3, [53, 53])

mp.prec = 1500
value = int(mp.floor(2 / mp.pi * mpf(2) ** (64 * 20)))
words = [f"0x{(value >> (64 * (19 - i))) & (2**64 - 1):016x}," for i in range(20)]
lines.append("/// The first 1280 bits of 2 / pi behind the point, the highest first.")
lines.append("pub(super) const TWO_OVER_PI: [u64; 20] = [")
lines.extend(f"    {word}" for word in words)
lines.append("];\n")

header = """//! Polynomials, from the constant on, and constants in parts. Written by generate/coefficients.py.

// A constant's first part is the nearest double, like the standard library's.
#![allow(clippy::approx_constant)]

"""
path = pathlib.Path(__file__).parent / "../src/math/coefficients.rs"
path.parent.mkdir(exist_ok=True)
path.write_text(header + "\n".join(lines).rstrip("\n") + "\n")
