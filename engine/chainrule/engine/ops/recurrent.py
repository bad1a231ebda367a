"""Recurrences over a sequence, forward and back through time, on arrays.

Each takes the part of the gates that comes from the inputs, a (T, N, gates · H), computed for all steps at once, and
the state h (N, H) before the first step. wₕ is (gates · H, H). Names of gradients begin with d.
"""

from __future__ import annotations

import numpy as np

from chainrule.engine.dtypes import Array

# ---- tanh and ReLU ----


def rnn(a: Array, h: Array, w: Array, activation: str) -> Array:
    """hₜ = φ(aₜ + hₜ₋₁·wₕᵀ) for all t: (T, N, H), φ tanh or relu."""
    hs: Array = np.empty((len(a), *h.shape), a.dtype)
    for t in range(len(a)):
        y = h @ w.T
        y += a[t]
        h = np.tanh(y, out=hs[t]) if activation == "tanh" else np.maximum(y, 0, out=hs[t])
    return hs


def rnn_gradient(dhs: Array, dh: Array, hs: Array, h: Array, w: Array, activation: str) -> tuple[Array, Array, Array]:
    """The gradients of a, h and w, from those of all hₜ and of the last."""
    da: Array = np.empty_like(hs)
    for t in reversed(range(len(hs))):
        dh = dh + dhs[t]
        np.multiply(dh, 1 - hs[t] * hs[t] if activation == "tanh" else hs[t] > 0, out=da[t])
        dh = da[t] @ w
    return da, dh, _weight_gradient(da, hs, h)


# ---- LSTM ----


def lstm(a: Array, h: Array, c: Array, w: Array) -> tuple[Array, Array, Array]:
    """All hₜ, all cₜ, (T, N, H), and the gates (T, N, 4·H), for

        i, f, g, o = σ, σ, tanh, σ of the parts of aₜ + hₜ₋₁·wₕᵀ
        cₜ = f · cₜ₋₁ + i · g
        hₜ = o · tanh cₜ

    Source: Hochreiter and Schmidhuber, with the forget gate of Gers et al., https://doi.org/10.1162/089976600300015015
    """
    size = h.shape[-1]
    hs: Array = np.empty((len(a), *h.shape), a.dtype)
    cs: Array = np.empty_like(hs)
    gates: Array = np.empty_like(a)
    for t in range(len(a)):
        y = np.add(a[t], h @ w.T, out=gates[t])
        candidate = np.tanh(y[:, 2 * size : 3 * size])
        _sigmoid(y)
        y[:, 2 * size : 3 * size] = candidate
        i, f, g, o = _split(y, 4)
        np.multiply(f, c, out=cs[t])
        cs[t] += i * g
        c = cs[t]
        h = np.multiply(o, np.tanh(c), out=hs[t])
    return hs, cs, gates


def lstm_gradient(
    dhs: Array, dh: Array, dc: Array, hs: Array, cs: Array, gates: Array, h: Array, c: Array, w: Array
) -> tuple[Array, Array, Array, Array]:
    """The gradients of a, h, c and w, from those of all hₜ, of the last, and of the last cₜ."""
    da: Array = np.empty_like(gates)
    for t in reversed(range(len(hs))):
        i, f, g, o = _split(gates[t], 4)
        di, df, dg, do = _split(da[t], 4)
        before = cs[t - 1] if t else c
        tanh_c = np.tanh(cs[t])
        dh = dh + dhs[t]
        dc = dc + dh * o * (1 - tanh_c * tanh_c)
        np.multiply(dc * g, i * (1 - i), out=di)
        np.multiply(dc * before, f * (1 - f), out=df)
        np.multiply(dc * i, 1 - g * g, out=dg)
        np.multiply(dh * tanh_c, o * (1 - o), out=do)
        dc = dc * f
        dh = da[t] @ w
    return da, dh, dc, _weight_gradient(da, hs, h)


# ---- GRU ----


def gru(a: Array, h: Array, w: Array, b: Array | None) -> tuple[Array, Array, Array]:
    """All hₜ (T, N, H), the gates (T, N, 3·H), and what r multiplies (T, N, H), for u = hₜ₋₁·wₕᵀ + b and

        r, z = σ of the parts of aₜ + u
        n = tanh(aₙ + r · uₙ)
        hₜ = (1 − z) · n + z · hₜ₋₁

    Source: Cho et al., https://arxiv.org/abs/1406.1078; r multiplies after the product, as in PyTorch.
    """
    size = h.shape[-1]
    hs: Array = np.empty((len(a), *h.shape), a.dtype)
    inner: Array = np.empty_like(hs)
    gates: Array = np.empty_like(a)
    for t in range(len(a)):
        u = h @ w.T
        if b is not None:
            u += b
        inner[t] = u[:, 2 * size :]
        rz = np.add(a[t, :, : 2 * size], u[:, : 2 * size], out=gates[t, :, : 2 * size])
        _sigmoid(rz)
        r, z, n = _split(gates[t], 3)
        np.tanh(a[t, :, 2 * size :] + r * inner[t], out=n)
        h = np.add(n, z * (h - n), out=hs[t])
    return hs, gates, inner


def gru_gradient(
    dhs: Array, dh: Array, hs: Array, gates: Array, inner: Array, h: Array, w: Array
) -> tuple[Array, Array, Array, Array]:
    """The gradients of a, h, w and b, from those of all hₜ and of the last."""
    da: Array = np.empty_like(gates)
    du: Array = np.empty_like(gates)
    size = h.shape[-1]
    for t in reversed(range(len(hs))):
        r, z, n = _split(gates[t], 3)
        dr, dz, dn = _split(da[t], 3)
        before = hs[t - 1] if t else h
        dh = dh + dhs[t]
        np.multiply(dh * (1 - z), 1 - n * n, out=dn)
        np.multiply(dn * inner[t], r * (1 - r), out=dr)
        np.multiply(dh * (before - n), z * (1 - z), out=dz)
        du[t, :, : 2 * size] = da[t, :, : 2 * size]
        np.multiply(dn, r, out=du[t, :, 2 * size :])
        dh = dh * z + du[t] @ w
    return da, dh, _weight_gradient(du, hs, h), du.sum(axis=(0, 1))


# ---- Parts ----


def _sigmoid(x: Array) -> None:
    """x ← 1 / (1 + e⁻ˣ), as (1 + tanh(x / 2)) / 2, which never overflows."""
    x *= 0.5
    np.tanh(x, out=x)
    x += 1
    x *= 0.5


def _split(gates: Array, count: int) -> list[Array]:
    """The parts of gates (N, count · H), each a view."""
    size = gates.shape[-1] // count
    return [gates[:, k * size : (k + 1) * size] for k in range(count)]


def _weight_gradient(da: Array, hs: Array, h: Array) -> Array:
    """Σ daₜᵀ·hₜ₋₁ over t and the batch, as one product."""
    before = np.concatenate([h[None], hs[:-1]])
    dw: Array = da.reshape(-1, da.shape[-1]).T @ before.reshape(-1, before.shape[-1])
    return dw
