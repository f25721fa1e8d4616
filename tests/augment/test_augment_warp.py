"""Each geometric transform against OpenCV or SciPy, given the same parameters."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pneumojax.augment import warp

HEIGHT, WIDTH = 48, 64


def smooth_image(seed=0):
    noise = np.random.default_rng(seed).random((HEIGHT, WIDTH))
    image = ndimage.gaussian_filter(noise, 2)
    return ((image - image.min()) / np.ptp(image)).astype(np.float32)


IMAGE = smooth_image()
MASK = (IMAGE > 0.5).astype(np.float32)
PIXELS = warp.pixels(HEIGHT, WIDTH)


def sample(points, image=IMAGE, mask=MASK):
    image, mask = jax.jit(warp.sample)(image, mask, points)
    return np.asarray(image), np.asarray(mask)


def remapped(points, image=IMAGE):
    return ndimage.map_coordinates(image, [points.y, points.x], order=1, mode='mirror')


def random_points(seed=3, reach=200):
    y, x = np.random.default_rng(seed).uniform(-reach, reach, (2, HEIGHT, WIDTH))
    return PIXELS._replace(y=jnp.float32(y), x=jnp.float32(x))


def test_pixels_are_the_identity_bit_for_bit():
    image, mask = sample(PIXELS)
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(mask, MASK)


def test_sampling_equals_scipy_far_beyond_the_border():
    points = random_points()
    image, mask = sample(points)
    np.testing.assert_allclose(image, remapped(points), atol=2e-5)
    nearest = ndimage.map_coordinates(MASK, [points.y, points.x], order=0, mode='mirror')
    # Only half-way between two pixels may float32 take the other one.
    half_way = np.abs(np.stack([points.y % 1, points.x % 1]) - 0.5).min(axis=0) < 1e-4
    np.testing.assert_array_equal(mask[~half_way], nearest[~half_way])
    assert half_way.mean() < 1e-3
    assert set(np.unique(mask)) <= {0, 1}


def test_sampling_equals_opencv_within_its_fixed_point():
    points = random_points(reach=60)
    image, _ = sample(points)
    expected = cv2.remap(
        IMAGE, np.asarray(points.x), np.asarray(points.y), cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )  # fmt: skip
    np.testing.assert_allclose(image, expected, atol=0.02)


@given(st.integers(2, 40), st.integers(-500, 500))
@settings(max_examples=50, deadline=None)
def test_reflection_of_whole_positions_equals_numpy_pad(size, position):
    padded = np.pad(np.arange(size), 501, mode='reflect')
    assert warp.reflect(jnp.float32(position), size) == padded[position + 501]


def test_a_black_pixel_keeps_its_mask_and_a_full_mask_its_image():
    for image in (np.zeros_like(IMAGE), IMAGE):
        sampled = sample(PIXELS, image, np.ones_like(MASK))
        np.testing.assert_array_equal(sampled[0], image)
        np.testing.assert_array_equal(sampled[1], 1)


def test_a_negative_zero_is_black_without_a_mask():
    """As -0 * factor is: its sign bit is not that of the mask."""
    zeros = jnp.zeros((4, 5))
    image, mask = warp.sample(-zeros, zeros, warp.pixels(4, 5))
    np.testing.assert_array_equal(image, zeros)
    np.testing.assert_array_equal(mask, zeros)


def test_rotation_matrix_equals_opencv():
    ours = warp.rotation_matrix((32.0, 24.0), 17.0, 1.15)
    np.testing.assert_allclose(ours, cv2.getRotationMatrix2D((32, 24), 17, 1.15), atol=1e-5)


def test_jitter_matrix_equals_opencv_on_the_same_three_corners():
    jitter = np.random.default_rng(0).uniform(-4, 4, (3, 2)).astype(np.float32)
    cx, cy, half = WIDTH // 2, HEIGHT // 2, HEIGHT // 3
    corners = np.float32([[cx + half, cy + half], [cx + half, cy - half], [cx - half, cy - half]])
    expected = cv2.getAffineTransform(corners, corners + jitter)
    ours = warp.jitter_matrix(jnp.asarray(jitter), HEIGHT, WIDTH)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize(
    ('border', 'flag'), [('reflect', cv2.BORDER_REFLECT_101), ('constant', cv2.BORDER_CONSTANT)]
)
def test_affine_equals_opencv(border, flag):
    matrix = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), -20, 0.8)
    matrix[:, 2] += (9.3, -6.1)
    points = warp.affine_points(PIXELS, jnp.float32(matrix), border=border)
    image, mask = sample(points)
    expected = cv2.warpAffine(
        IMAGE, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=flag
    )
    # OpenCV may round positions to 1/32 pixel.
    assert np.abs(image - expected).max() < 0.03
    assert np.abs(image - expected).mean() < 2e-3
    nearest = cv2.warpAffine(
        MASK, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_NEAREST, borderMode=flag
    )
    assert (mask != nearest).mean() < 0.01


def test_affine_with_constant_border_equals_scipy():
    matrix = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), 20, 0.8)
    inverse = cv2.invertAffineTransform(matrix)
    # SciPy works on (y, x); 'grid-constant' blends into the border, as OpenCV does.
    expected = ndimage.affine_transform(
        IMAGE, inverse[::-1, [1, 0]], inverse[::-1, 2], order=1, mode='grid-constant'
    )
    points = warp.affine_points(PIXELS, jnp.float32(matrix), border='constant')
    np.testing.assert_allclose(sample(points)[0], expected, atol=1e-4)
    assert (expected == 0).mean() > 0.1


def test_crop_equals_opencv_resize_of_the_part():
    top, left, share = 5, 11, 0.75
    part = np.s_[top : top + int(HEIGHT * share), left : left + int(WIDTH * share)]
    image, mask = sample(warp.crop_points(PIXELS, top=top, left=left, share=share))
    expected = cv2.resize(IMAGE[part], (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(image, expected, atol=1e-4)
    nearest = cv2.resize(MASK[part], (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST_EXACT)
    assert (mask != nearest).mean() < 0.01


def test_grid_equals_numpy_interpolation_between_the_knots():
    steps_y, steps_x = np.float32([1.2, 0.8, 0.9, 1.3]), np.float32([0.7, 1.1, 1.2, 1.3, 0.9])

    def axis(size, steps):
        knots = np.arange(len(steps) + 1) * size / len(steps)
        read = np.concatenate([[0], np.cumsum(steps)]) * size / len(steps)
        return np.interp(np.arange(size), knots, read)

    y, x = np.meshgrid(axis(HEIGHT, steps_y), axis(WIDTH, steps_x), indexing='ij')
    assert x.max() > WIDTH - 1  # the reflected part is tested too
    points = warp.grid_points(PIXELS, jnp.asarray(steps_y), jnp.asarray(steps_x))
    expected = ndimage.map_coordinates(IMAGE, [y, x], order=1, mode='mirror')
    np.testing.assert_allclose(sample(points)[0], expected, atol=1e-4)


@pytest.mark.parametrize('k', [-2.0, -0.3, 0.0, 0.7, 2.0])
def test_optical_equals_opencv(k):
    dx, dy = 1.5, -0.5
    camera = np.float32([[WIDTH, 0, WIDTH / 2 + dx], [0, WIDTH, HEIGHT / 2 + dy], [0, 0, 1]])
    x, y = cv2.initUndistortRectifyMap(
        camera, np.float32([k, k, 0, 0, 0]), None, camera, (WIDTH, HEIGHT), cv2.CV_32FC1
    )
    expected = ndimage.map_coordinates(IMAGE, [y, x], order=1, mode='mirror')
    image, _ = sample(warp.optical_points(PIXELS, k=k, dx=dx, dy=dy))
    np.testing.assert_allclose(image, expected, atol=1e-3)


@pytest.mark.parametrize('sigma', [0.0, 0.5, 3.0, 6.0, 30.0])
def test_elastic_field_equals_scipy(sigma):
    noise = np.random.default_rng(0).uniform(-1, 1, (2, HEIGHT, WIDTH)).astype(np.float32)
    expected = 7 * np.stack([ndimage.gaussian_filter(one.astype(float), sigma) for one in noise])
    ours = warp.elastic_field(jnp.asarray(noise), HEIGHT, WIDTH, alpha=7.0, sigma=sigma)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


@given(st.integers(2, 130), st.floats(0.1, 40))
@settings(max_examples=50, deadline=None)
def test_sparse_noise_has_the_covariance_of_scipys_smoothing_of_a_number_a_pixel(size, sigma):
    count = warp.noise_size(size, sigma)
    assert size % count == 0
    ours = warp.smoothing_matrix(size, count, sigma).astype(float)
    theirs = ndimage.gaussian_filter1d(np.eye(size), sigma, axis=0)
    expected = theirs @ theirs.T
    np.testing.assert_allclose(ours @ ours.T, expected, atol=3e-4 * expected.max())


def test_noise_is_sparse_where_the_sizes_allow():
    assert [warp.noise_size(size, 6 * size / 512) for size in (128, 256, 512, 1024)] == [128] * 4
    assert warp.noise_size(61, 6.0) == 61  # a prime number


def test_elastic_equals_scipy_between_the_pixels_too():
    field = np.stack([4 * smooth_image(1) - 2, 4 * smooth_image(2) - 2])
    y, x = np.random.default_rng(0).uniform(0, HEIGHT - 1, (2, HEIGHT, WIDTH))
    moved_y, moved_x = (
        at + ndimage.map_coordinates(one, [y, x], order=1)
        for at, one in zip((y, x), field, strict=True)
    )
    expected = ndimage.map_coordinates(IMAGE, [moved_y, moved_x], order=1, mode='mirror')
    points = PIXELS._replace(y=jnp.float32(y), x=jnp.float32(x))
    image, _ = sample(warp.elastic_points(points, jnp.asarray(field)))
    np.testing.assert_allclose(image, expected, atol=1e-4)
