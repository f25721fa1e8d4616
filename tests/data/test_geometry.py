"""Fitting into squares, against area averages and interpolation written out here."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumojax.data import geometry


def box_matrix(source, target):
    """[target, source]: how much of each source pixel lies in each target pixel, rows sum to 1."""
    step = source / target
    low, high = np.arange(target)[:, None] * step, np.arange(1, target + 1)[:, None] * step
    pixel = np.arange(source)
    return np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None) / step


def linear_matrix(source, target):
    """[target, source]: linear interpolation between pixel centres, edges held."""
    at = (np.arange(target) + 0.5) * source / target - 0.5
    unit = np.eye(source)
    return np.stack([np.interp(at, np.arange(source), row) for row in unit], axis=1)


def resized(image, height, width, matrix):
    return matrix(image.shape[0], height) @ image.astype(float) @ matrix(image.shape[1], width).T


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


shapes = st.tuples(st.integers(1, 90), st.integers(1, 90))
sizes = st.integers(1, 100)


@given(shapes, sizes)
def test_the_fit_lies_inside_touches_two_sides_and_is_centred(shape, size):
    fit = geometry.fit_of(shape, size)
    bottom, right = size - fit.top - fit.height, size - fit.left - fit.width
    assert min(*fit, bottom, right) >= 0
    assert max(fit.height, fit.width) == size
    assert abs(fit.top - bottom) <= 1
    assert abs(fit.left - right) <= 1


@given(shapes, sizes)
def test_the_aspect_is_kept_to_half_a_pixel(shape, size):
    fit = geometry.fit_of(shape, size)
    scale = size / max(shape)
    for fitted, original in zip((fit.height, fit.width), shape, strict=True):
        assert abs(fitted - original * scale) <= 0.5 or fitted == 1


@pytest.mark.parametrize(
    ('shape', 'aspect', 'expected'),
    [
        ((30, 60), 2.0, (0, 0, 64, 64)),  # 30 pixels of height 2, 60 of width 1
        ((60, 30), 0.5, (0, 0, 64, 64)),
        ((60, 60), 2.0, (0, 16, 64, 32)),
        ((60, 60), 0.5, (16, 0, 32, 64)),
    ],
)
def test_tall_and_flat_pixels_are_squared(shape, aspect, expected):
    """What is a disk on the patient is one in the square, and where it was in the image again."""
    assert geometry.fit_of(shape, 64, aspect) == expected
    y, x = (np.arange(n) + 0.5 - n / 2 for n in shape)
    disk = (np.hypot(y[:, None] * aspect, x[None]) < 0.4 * min(shape[0] * aspect, shape[1])) * 255
    square = geometry.fit_image(disk.astype(np.uint8), 64, aspect)
    extents = [np.ptp(np.flatnonzero((square > 127).any(axis=axis))) for axis in (0, 1)]
    assert abs(extents[0] - extents[1]) <= 2
    back = geometry.unfit(square.astype(np.float32) / 255, shape, aspect)
    assert np.mean((back > 0.5) != (disk > 0)) < 0.03


@settings(deadline=None)
@given(shapes, sizes)
def test_shapes_are_exact(shape, size):
    image = noise(shape)
    square = geometry.fit_image(image, size)
    assert square.shape == (size, size)
    assert square.dtype == np.uint8
    mask = geometry.fit_mask(image // 128, size)
    assert mask.shape == (size, size)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 1}
    back = geometry.unfit(square.astype(np.float32) / 255, shape)
    assert back.shape == shape
    assert back.dtype == np.float32
    assert back.min() >= 0
    assert back.max() <= 1 + 1e-6


@pytest.mark.parametrize('shape', [(64, 64), (1, 1), (48, 64), (64, 10)])
def test_an_image_that_fits_already_is_not_touched(shape):
    image = noise(shape)
    fit = geometry.fit_of(shape, max(shape))
    square = geometry.fit_image(image, max(shape))
    np.testing.assert_array_equal(square[fit.top :, fit.left :][: shape[0], : shape[1]], image)
    assert square.astype(int).sum() == image.astype(int).sum()  # black margins
    np.testing.assert_array_equal(geometry.unfit(square.astype(np.float32), shape), image)


@settings(deadline=None, max_examples=60)
@given(shapes, st.integers(1, 60), st.integers(0, 9))
def test_shrinking_averages_areas(shape, size, seed):
    if size >= max(shape):
        return
    image = noise(shape, seed)
    fit = geometry.fit_of(shape, size)
    square = geometry.fit_image(image, size).astype(float)
    inner = square[fit.top : fit.top + fit.height, fit.left : fit.left + fit.width]
    expected = resized(image, fit.height, fit.width, box_matrix)
    np.testing.assert_allclose(inner, expected, atol=0.51)
    assert square.sum() == inner.sum()


@pytest.mark.parametrize('size', [1, 5, 64])
def test_a_quarter_has_the_bits_of_opencv(size):
    image = noise((4 * size, 4 * size))
    for first in (0, 1, 254, 255):
        image[:4, :4] = first
        quarter = geometry.fit_image(image, size)
        sums = image.reshape(size, 4, size, 4).sum(axis=(1, 3))
        np.testing.assert_array_equal(quarter, np.rint(sums / 16))  # halves to even
        by_opencv = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(quarter, by_opencv)


@settings(deadline=None, max_examples=60)
@given(shapes, st.integers(1, 100), st.integers(0, 9))
def test_enlarging_interpolates_linearly(shape, size, seed):
    if size <= max(shape):
        return
    image = noise(shape, seed)
    fit = geometry.fit_of(shape, size)
    square = geometry.fit_image(image, size).astype(float)
    inner = square[fit.top : fit.top + fit.height, fit.left : fit.left + fit.width]
    expected = resized(image, fit.height, fit.width, linear_matrix)
    np.testing.assert_allclose(inner, expected, atol=1.01)


@settings(deadline=None, max_examples=60)
@given(shapes, st.integers(1, 60), st.integers(0, 9))
def test_a_shrunk_mask_has_the_pixels_that_were_half_covered(shape, size, seed):
    if size > max(shape):
        return
    mask = noise(shape, seed) // 128
    fit = geometry.fit_of(shape, size)
    covered = np.zeros((size, size))
    covered[fit.top : fit.top + fit.height, fit.left : fit.left + fit.width] = resized(
        mask, fit.height, fit.width, box_matrix
    )
    got = geometry.fit_mask(mask, size)
    sure = np.abs(covered - 0.5) > 1 / 255  # closer, rounding to 8 bits decides
    np.testing.assert_array_equal(got[sure], covered[sure] > 0.5)


def test_exactly_half_is_in_and_less_is_not():
    mask = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0]], np.uint8)
    np.testing.assert_array_equal(geometry.fit_mask(mask, 2), [[1, 0], [1, 1]])


@pytest.mark.parametrize('size', [32, 64, 128, 256])
def test_a_centred_square_mask_stays_one(size):
    mask = np.zeros((128, 128), np.uint8)
    mask[32:96, 32:96] = 1
    expected = np.zeros((size, size), np.uint8)
    expected[size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = 1
    np.testing.assert_array_equal(geometry.fit_mask(mask, size), expected)


@pytest.mark.parametrize('shape', [(1024, 1024), (1024, 700), (300, 1000), (120, 120)])
def test_a_smooth_image_survives_the_way_there_and_back(shape):
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    smooth = 128 + 60 * np.sin(6 * x) + 60 * np.cos(5 * y)
    square = geometry.fit_image(smooth.round().astype(np.uint8), 256).astype(np.float32)
    error = np.abs(geometry.unfit(square, shape) - smooth)
    assert error.max() < 4
    assert error.mean() < 1


def test_a_mask_comes_back_where_it_was():
    mask = np.zeros((900, 500), np.uint8)
    mask[100:400, 300:420] = 1
    back = geometry.unfit(geometry.fit_mask(mask, 256).astype(np.float32), mask.shape) > 0.5
    both = (back & (mask > 0)).sum()
    assert 2 * both / (back.sum() + mask.sum()) > 0.98
