"""Windows: pixels of the image as they were, from everywhere, over the lesion where asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pneumojax.augment.window import random_window

HEIGHT, WIDTH, SIZE = 12, 10, 4
NUMBERED = jnp.arange(HEIGHT * WIDTH, dtype=jnp.float32).reshape(HEIGHT, WIDTH)


def draw(mask, count=3000, **options):
    """Corners [count, 2] of windows, each found to be a piece of image and mask."""
    keys = jax.random.split(jax.random.key(0), count)
    cut = jax.jit(jax.vmap(lambda k: random_window(k, NUMBERED, mask, size=SIZE, **options)))
    images, masks = jax.device_get(cut(keys))
    assert images.shape == masks.shape == (count, SIZE, SIZE)
    corners = np.stack(np.divmod(images[:, 0, 0].astype(int), WIDTH), axis=1)
    for (y, x), image, part in zip(corners[:50], images, masks, strict=False):
        np.testing.assert_array_equal(image, NUMBERED[y : y + SIZE, x : x + SIZE])
        np.testing.assert_array_equal(part, mask[y : y + SIZE, x : x + SIZE])
    return corners


def lesion(*pixels):
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    for y, x in pixels:
        mask[y, x] = 1
    return jnp.asarray(mask)


def assert_alike(values, choices, count):
    """Each choice about as often: within five standard deviations of its count."""
    seen = np.array([(values == choice).sum() for choice in choices])
    expected = count / len(choices)
    assert seen.sum() == count
    assert np.abs(seen - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize('options', [{}, {'on_lesion': 1.0}])
def test_without_a_lesion_all_windows_are_as_likely(options):
    corners = draw(lesion(), **options)
    assert_alike(corners[:, 0], range(HEIGHT - SIZE + 1), len(corners))
    assert_alike(corners[:, 1], range(WIDTH - SIZE + 1), len(corners))


@pytest.mark.parametrize(
    ('pixel', 'rows', 'columns'),
    [((5, 4), range(2, 6), range(1, 5)), ((0, 9), [0], [6]), ((11, 0), [8], [0])],
)
def test_over_a_pixel_all_windows_that_contain_it_are_as_likely(pixel, rows, columns):
    corners = draw(lesion(pixel), on_lesion=1.0)
    assert_alike(corners[:, 0], rows, len(corners))
    assert_alike(corners[:, 1], columns, len(corners))


def test_every_pixel_of_the_lesion_is_drawn_and_the_share_is_kept():
    corners = draw(lesion((0, 0), (11, 9)), on_lesion=0.5)
    first, second = (corners == (0, 0)).all(axis=1), (corners == (8, 6)).all(axis=1)
    elsewhere = 0.5 / (9 * 7)  # each corner's part of the uniform half
    for hit in (first, second):
        assert abs(hit.mean() - (0.25 + elsewhere)) < 0.05
    assert abs((~first & ~second).mean() - (0.5 - 2 * elsewhere)) < 0.05


def test_a_window_as_large_as_the_image_is_the_image():
    square = NUMBERED[:WIDTH]
    image, mask = random_window(
        jax.random.key(1), square, lesion((2, 3))[:WIDTH], size=WIDTH, on_lesion=1.0
    )
    np.testing.assert_array_equal(image, square)
    np.testing.assert_array_equal(mask, lesion((2, 3))[:WIDTH])
