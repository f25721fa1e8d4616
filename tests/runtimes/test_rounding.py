"""Kernels in bfloat16: every value is one, and sums stay; against ml_dtypes' own rounding."""

import ml_dtypes
import numpy as np
import pytest

from pneumojax.runtimes import rounding


def kernel(*shape):
    return np.random.default_rng(0).normal(0, 0.05, shape).astype(np.float32)


@pytest.mark.parametrize('shape', [(4, 6, 3, 3), (5, 1, 7, 7), (8, 16, 1, 1)])
def test_every_value_is_a_bfloat16_near_its_own(shape):
    exact = kernel(*shape)
    rounded = rounding.to_bfloat16(exact)
    np.testing.assert_array_equal(rounded, rounded.astype(ml_dtypes.bfloat16).astype(np.float32))
    # Half a step for the rounding, half for what the one before handed on.
    assert np.abs(rounded - exact).max() <= np.abs(exact).max() * 2**-7


def test_sums_are_kept_to_one_rounding():
    for shape, axes in (((64, 32, 3, 3), (2, 3)), ((64, 128, 1, 1), (1, 2, 3))):
        exact = kernel(*shape)
        wrong = np.abs((rounding.to_bfloat16(exact) - exact.astype(np.float64)).sum(axis=axes))
        assert (wrong <= np.abs(exact).max() * 2**-8).all()
        naive = exact.astype(ml_dtypes.bfloat16).astype(np.float64)
        assert wrong.mean() < np.abs((naive - exact).sum(axis=axes)).mean() / 2


def test_ties_and_steps_are_rounded_as_ml_dtypes_does():
    """One tap and one input: nothing is handed on."""
    exact = np.concatenate([
        kernel(5000), np.float32([0, -0.0, 1, 1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8), 1e-40, 3e38]),
    ]).reshape(-1, 1, 1, 1)  # fmt: skip
    expected = exact.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(rounding.to_bfloat16(exact), expected)


def test_zeros_stay_zeros_and_hand_on_what_they_were_handed():
    exact = np.random.default_rng(0).uniform(1, 1.9, (16, 8, 5, 5)).astype(np.float32)
    exact[:, :, 1:3, 2] = 0
    rounded = rounding.to_bfloat16(exact)
    np.testing.assert_array_equal(rounded == 0, exact == 0)
    wrong = np.abs((rounded - exact.astype(np.float64)).sum(axis=(2, 3)))
    # Half of bfloat16's step between 1 and 2, and float32's rounding of what was handed on.
    assert wrong.max() <= 2**-8 + 1e-5


def test_what_each_output_of_a_transposed_convolution_sees_keeps_its_sum():
    """An output between four inputs of one sees every second tap, by row and by column."""
    exact = kernel(3, 16, 4, 4)
    rounded = rounding.transposed_to_bfloat16(exact)
    np.testing.assert_array_equal(rounded, rounded.astype(ml_dtypes.bfloat16).astype(np.float32))
    lost = rounded - exact.astype(np.float64)
    assert 0 < np.abs(lost).max() <= np.abs(exact).max() * 2**-7
    for row in (0, 1):
        for column in (0, 1):
            seen = lost[:, :, row::2, column::2].sum(axis=(2, 3))
            assert np.abs(seen).max() <= np.abs(exact).max() * 2**-8
    naive = exact.astype(ml_dtypes.bfloat16).astype(np.float64) - exact
    assert np.abs(seen).mean() < np.abs(naive[:, :, 1::2, 1::2].sum(axis=(2, 3))).mean()
