"""Kernels in bfloat16: values are exact and sums are kept; against ml_dtypes' own rounding."""

import ml_dtypes
import numpy as np
import pytest

from pneumojax.runtimes.bfloat16_kernels import round_kernel, round_transposed_kernel


def kernel(*shape):
    return np.random.default_rng(0).normal(0, 0.05, shape).astype(np.float32)


@pytest.mark.parametrize('shape', [(4, 6, 3, 3), (5, 1, 7, 7), (8, 16, 1, 1)])
def test_every_value_is_a_bfloat16_near_its_own(shape):
    exact = kernel(*shape)
    rounded = round_kernel(exact)
    np.testing.assert_array_equal(rounded, rounded.astype(ml_dtypes.bfloat16).astype(np.float32))
    # Half a step for the rounding, half for the error of the weight before.
    assert np.abs(rounded - exact).max() <= np.abs(exact).max() * 2**-7


def test_sums_are_kept_to_one_rounding():
    for shape, axes in (((64, 32, 3, 3), (2, 3)), ((64, 128, 1, 1), (1, 2, 3))):
        exact = kernel(*shape)
        wrong = np.abs((round_kernel(exact) - exact.astype(np.float64)).sum(axis=axes))
        assert (wrong <= np.abs(exact).max() * 2**-8).all()
        naive = exact.astype(ml_dtypes.bfloat16).astype(np.float64)
        assert wrong.mean() < np.abs((naive - exact).sum(axis=axes)).mean() / 2


def test_ties_and_steps_are_rounded_as_ml_dtypes_does():
    """One tap and one input: no error is passed on."""
    exact = np.concatenate([
        kernel(5000), np.float32([0, -0.0, 1, 1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8), 1e-40, 3e38]),
    ]).reshape(-1, 1, 1, 1)  # fmt: skip
    expected = exact.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(round_kernel(exact), expected)


def test_sums_that_outputs_of_a_transposed_convolution_see_are_kept():
    """An output sees every second tap, by row and by column."""
    exact = kernel(3, 16, 4, 4)
    rounded = round_transposed_kernel(exact)
    np.testing.assert_array_equal(rounded, rounded.astype(ml_dtypes.bfloat16).astype(np.float32))
    error = rounded - exact.astype(np.float64)
    assert 0 < np.abs(error).max() <= np.abs(exact).max() * 2**-7
    for row in (0, 1):
        for column in (0, 1):
            seen = error[:, :, row::2, column::2].sum(axis=(2, 3))
            assert np.abs(seen).max() <= np.abs(exact).max() * 2**-8
    naive = exact.astype(ml_dtypes.bfloat16).astype(np.float64) - exact
    assert np.abs(seen).mean() < np.abs(naive[:, :, 1::2, 1::2].sum(axis=(2, 3))).mean()
