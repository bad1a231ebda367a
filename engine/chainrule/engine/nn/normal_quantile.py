"""The normal distribution's cumulative distribution function Φ, and its inverse."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Float64s = npt.NDArray[np.float64]

# Numerators and denominators of Wichura's rational functions, highest power first: for |p − ½| ≤ 0.425 in
# 0.180625 − (p − ½)², and in r = √(−ln min(p, 1 − p)): r − 1.6 up to r = 5, and r − 5 beyond.
_centre = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
     5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)  # fmt: skip
_middle = (
    (7.7454501427834140764e-4, 2.27238449892691845833e-2, 0.24178072517745061177, 1.27045825245236838258,
     3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 1.51986665636164571966e-2, 0.14810397642748007459,
     0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
)  # fmt: skip
_tail = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.2426609473880784386e-3, 2.65321895265761230930e-2,
     0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
     1.48753612908506148525e-2, 0.13692988092273580531, 0.59983220655588793769, 1.0),
)  # fmt: skip


def normal_cdf(x: float) -> float:
    """Φ(x) = ½ erfc(−x / √2)"""
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def normal_quantile(p: Float64s) -> Float64s:
    """Φ⁻¹(p) to about 16 digits, for p in [0, 1].

    Source: Wichura, Algorithm AS 241: the percentage points of the normal distribution, Applied Statistics 37 (1988)
    """
    q = p - 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.sqrt(-np.log(np.minimum(p, 1.0 - p)))
        outer = np.where(r <= 5.0, _ratio(_middle, r - 1.6), np.where(np.isinf(r), r, _ratio(_tail, r - 5.0)))
    return np.where(np.abs(q) <= 0.425, q * _ratio(_centre, 0.180625 - q * q), np.copysign(outer, q))


def _ratio(polynomials: tuple[tuple[float, ...], tuple[float, ...]], x: Float64s) -> Float64s:
    numerator, denominator = (np.polyval(np.array(polynomial), x) for polynomial in polynomials)
    ratio: Float64s = numerator / denominator
    return ratio
