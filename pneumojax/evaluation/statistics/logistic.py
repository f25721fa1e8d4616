"""Logistic regression on one variable, for many weightings of the same images at once."""

import numpy as np
from jaxtyping import Float, Float64

EPSILON = 1e-6  # keeps the log-odds of 0 and 1 finite


def log_odds(probability: Float[np.ndarray, '*shape']) -> Float64[np.ndarray, '*shape']:
    """log(p / (1 - p)) with `EPSILON` added to both: finite, and strictly rising, on [0, 1]."""
    p = np.asarray(probability, np.float64)
    return np.log(p + EPSILON) - np.log1p(EPSILON - p)


def expit(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def fit(
    x: Float64[np.ndarray, ' N'],
    target: Float64[np.ndarray, ' N'],
    weights: Float64[np.ndarray, 'S N'],
    slope: float | None = None,
) -> tuple[Float64[np.ndarray, ' S'], Float64[np.ndarray, ' S']]:
    """Maximum likelihood of P(1) = expit(slope * x + intercept), by Newton's method with halving.

    Args:
      x: the variable, finite.
      target: what is observed, in [0, 1]; between the two for smoothed labels.
      weights: how often each of N images counts in each of S samples.
      slope: fixed, and only the intercept is fitted; None fits both.

    Returns:
      (slope, intercept) of each sample. NaN where the likelihood has no maximum: one class only, x
      the same everywhere, or classes that x separates.
    """
    mean, scale = x.mean(), x.std() or 1.0
    z = (x - mean) / scale
    free = slope is None
    a = np.full(len(weights), 0.0 if slope is None else slope * scale)
    b = np.zeros(len(weights))
    if len(weights) > 1:  # near all of them at once is a good place to start
        whole = fit(z, target, weights.sum(axis=0, keepdims=True), slope and slope * scale)
        if np.isfinite(whole).all():
            a[:], b[:] = whole
    total = weights.sum(axis=1)
    step_a, step_b = np.zeros_like(a), np.zeros_like(b)
    loss = np.full(len(weights), np.inf)
    exists = _has_maximum(z, target, weights, free)
    for _ in range(60):
        eta = (a + step_a)[:, None] * z + (b + step_b)[:, None]
        e = np.exp(-np.abs(eta))
        new = (weights * (np.maximum(eta, 0) + np.log1p(e) - target * eta)).sum(axis=1)
        better = new <= loss + 1e-12 * total
        a, b = np.where(better, a + step_a, a), np.where(better, b + step_b, b)
        loss = np.where(better, new, loss)
        p = np.where(eta >= 0, 1, e) / (1 + e)
        curve = weights * p * (1 - p)
        missing = weights * (target - p)
        next_a, next_b = _newton(
            (missing @ z, missing.sum(axis=1)), (curve @ z**2, curve @ z, curve.sum(axis=1)), free
        )
        # A step that made the loss worse is halved, and tried again from where it began.
        step_a = np.where(better, next_a, step_a / 2)
        step_b = np.where(better, next_b, step_b / 2)
        if not (exists & (np.maximum(np.abs(step_a), np.abs(step_b)) > 1e-5)).any():
            a, b = a + step_a, b + step_b  # Newton's method squares the error
            break
    a, b = np.where(exists, a, np.nan), np.where(exists, b, np.nan)
    return a / scale, b - a * mean / scale


def _newton(
    gradient: tuple[np.ndarray, np.ndarray],
    hessian: tuple[np.ndarray, np.ndarray, np.ndarray],
    free: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Newton steps of slope and intercept, at most 4 long; the slope's is 0 unless it is free."""
    (g_a, g_b), (h_aa, h_ab, h_bb) = gradient, hessian
    if free:
        det = np.maximum(h_aa * h_bb - h_ab**2, 1e-300)
        step = np.stack([h_bb * g_a - h_ab * g_b, h_aa * g_b - h_ab * g_a]) / det
    else:
        step = np.stack([np.zeros_like(g_b), g_b / np.maximum(h_bb, 1e-300)])
    a, b = step * np.minimum(1, 4 / np.maximum(np.abs(step).max(axis=0), 1e-300))
    return a, b


def _has_maximum(z: np.ndarray, target: np.ndarray, weights: np.ndarray, free: bool) -> np.ndarray:
    """bool [S]: whether the classes overlap (Albert and Anderson 1984)."""
    ones, zeros = (weights > 0) & (target > 0), (weights > 0) & (target < 1)
    if not free:
        return np.logical_and(ones.any(axis=1), zeros.any(axis=1))
    ranges = [
        (np.where(of, z, np.inf).min(axis=1), np.where(of, z, -np.inf).max(axis=1))
        for of in (ones, zeros)
    ]
    (low, high), (other_low, other_high) = ranges
    return np.logical_and(low < other_high, other_low < high)
