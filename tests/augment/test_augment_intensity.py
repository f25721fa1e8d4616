"""Changes of intensity against look-up tables and closed forms."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pneumojax.augment import intensity

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
IMAGE = jnp.asarray(RAMP / 255, jnp.float32)


@pytest.mark.parametrize('exponent', [0.8, 1.0, 1.2])
def test_gamma_equals_a_look_up_table(exponent):
    table = np.float32([(i / 255) ** exponent for i in range(256)])
    expected = table[RAMP]
    np.testing.assert_allclose(intensity.adjust_gamma(IMAGE, exponent), expected, atol=1e-6)


@pytest.mark.parametrize(('factor', 'offset'), [(1.2, 0.0), (0.8, 0.0), (1.0, 0.2), (1.0, -0.2)])
def test_contrast_and_brightness_equal_opencv_within_its_rounding(factor, offset):
    expected = cv2.convertScaleAbs(RAMP, alpha=factor, beta=max(255 * offset, 0)) / 255
    if offset < 0:  # convertScaleAbs would take the absolute value
        expected = cv2.subtract(RAMP, np.full_like(RAMP, -255 * offset)) / 255
    actual = intensity.adjust_brightness(intensity.adjust_contrast(IMAGE, factor), offset)
    np.testing.assert_allclose(actual, expected, atol=0.51 / 255)


@pytest.mark.parametrize(
    ('operation', 'low', 'high'),
    [
        (intensity.random_contrast, 0.5 * 0.8, 0.5 * 1.2),
        (intensity.random_gamma, 0.5**1.2, 0.5**0.8),
        (intensity.random_brightness, 0.3, 0.7),
    ],
)
def test_draws_fill_the_stated_interval(operation, low, high):
    grey, draws = jnp.full((2, 2), 0.5), jnp.linspace(-1, 1, 500)
    images = jax.jit(jax.vmap(lambda draw: operation(draw, grey)))(draws)
    values = np.asarray(images[:, 0, 0])
    margin = 0.02 * (high - low)
    assert low - 1e-6 <= values.min() < low + margin
    assert high - margin < values.max() <= high + 1e-6


@pytest.mark.parametrize('factor', [0.0, 5.0])
def test_results_stay_in_range(factor):
    for result in (
        intensity.adjust_contrast(IMAGE, factor),
        intensity.adjust_brightness(IMAGE, factor - 2.5),
        intensity.adjust_gamma(IMAGE, factor + 0.1),
    ):
        assert 0 <= float(result.min()) <= float(result.max()) <= 1
