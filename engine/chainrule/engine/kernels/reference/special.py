"""Special functions that numpy lacks."""

from __future__ import annotations

import numpy as np

from chainrule.engine.dtypes import Array


def erf(x: Array) -> Array:
    """erf x = 2/√π ∫₀ˣ e^(−t²) dt, computed in float64 and rounded once."""
    x = np.asarray(x)
    order = np.argsort([-step for step in x.strides], kind="stable")  # y lies in memory as x does
    flat = x.transpose(order).ravel()
    y = np.empty_like(flat)
    of_block = _precise if flat.dtype == np.float64 else _quick
    for start in range(0, flat.size, _block):
        y[start : start + _block] = of_block(flat[start : start + _block].astype(np.float64))
    result: Array = y.reshape([x.shape[axis] for axis in order]).transpose(np.argsort(order))
    return result


_block = 16384  # elements at a time: what is computed with them stays in the cache

# ---- To 2·10⁻⁹, which float32 cannot tell from the truth: erf x = x · P(x²) / Q(x²) up to where float32 has 1 ----

# Highest power first. Of all such fractions that with the smallest relative error, by Lawson's weighted least squares.
_P = (
    -1.2831156369683832e-8,
    4.61503351877254e-6,
    3.7697972102251843e-4,
    3.8396088600655535e-3,
    5.425004162767227e-2,
    1.8514414938423512e-1,
    1.1283791691503726,
)
_Q = (
    6.245365185604431e-5,
    1.302019888739356e-3,
    1.5432804029972508e-2,
    1.1388174431825925e-1,
    4.974131369025256e-1,
    1.0,
)
_one_in_float32_from = 3.9255


def _quick(x: Array) -> Array:
    np.clip(x, -_one_in_float32_from, _one_in_float32_from, out=x)
    square = x * x
    y = _polynomial(square, _P)
    y *= x
    y /= _polynomial(square, _Q)
    return y


# ---- To float64's last digits ----

# Rational approximations of W. J. Cody, Rational Chebyshev approximations for the error function, Mathematics of
# Computation 23 (1969), with the coefficients of his SPECFUN; highest power first. Up to ½, erf x = x · A(x²) / B(x²);
# beyond, erf x = 1 − e^(−x²) · C(x) / D(x). His third formula, for erfc beyond 4, is not needed: what is taken from 1
# there is below 2·10⁻⁸.
_A = (
    1.85777706184603153e-1,
    3.16112374387056560e0,
    1.13864154151050156e2,
    3.77485237685302021e2,
    3.20937758913846947e3,
)
_B = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
_C = (
    2.15311535474403846e-8,
    5.64188496988670089e-1,
    8.88314979438837594e0,
    6.61191906371416295e1,
    2.98635138197400131e2,
    8.81952221241769090e2,
    1.71204761263407058e3,
    2.05107837782607147e3,
    1.23033935479799725e3,
)
_D = (
    1.0,
    1.57449261107098347e1,
    1.17693950891312499e2,
    5.37181101862009858e2,
    1.62138957456669019e3,
    3.29079923573345963e3,
    4.36261909014324716e3,
    3.43936767414372164e3,
    1.23033935480374942e3,
)
_one_from = 6.0  # 1 − erf 6 = 2·10⁻¹⁷ is less than float64 can tell from 0


def _precise(x: Array) -> Array:
    size = np.abs(x)
    y = np.empty_like(x)
    small = size <= 0.5
    near = x[small]
    square = near * near
    y[small] = near * _polynomial(square, _A) / _polynomial(square, _B)
    far = np.minimum(size[~small], _one_from)
    y[~small] = np.copysign(1 - np.exp(-far * far) * _polynomial(far, _C) / _polynomial(far, _D), x[~small])
    return y


def _polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    """Σ cᵢ · xⁿ⁻ⁱ by Horner's rule."""
    y: Array = x * coefficients[0]
    y += coefficients[1]
    for c in coefficients[2:]:
        y *= x
        y += c
    return y
