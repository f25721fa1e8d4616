"""Which blocks are hidden, against counting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from pneumojax.augment import hide


def config(share=0.5, blocks=4):
    augment = base.get_config().augment
    augment.hide, augment.hide_blocks = share, blocks
    return augment


def images(count=6, size=32):
    return jax.random.uniform(jax.random.key(7), (count, size, size, 1))


@pytest.mark.parametrize(('share', 'count'), [(0.5, 8), (0.3, 5), (0.01, 1), (0.99, 15)])
def test_always_as_many_whole_blocks_as_the_share_says(share, count):
    keys = jax.random.split(jax.random.key(0), 50)
    drawn = np.stack([
        hide.random_blocks(key, (32, 24), share=share, blocks=4) for key in keys
    ])  # fmt: skip
    blocks = drawn.reshape(50, 4, 8, 4, 6)
    assert (blocks.all(axis=(2, 4)) == blocks.any(axis=(2, 4))).all()
    assert set(blocks.any(axis=(2, 4)).sum(axis=(1, 2))) == {count}


def test_each_block_is_hidden_as_often_as_any_other():
    keys = jax.random.split(jax.random.key(1), 2000)
    draw = jax.vmap(lambda key: hide.random_blocks(key, (4, 4), share=0.25, blocks=4))
    # The standard error is 0.0097.
    np.testing.assert_allclose(draw(keys).mean(axis=0), 0.25, atol=0.045)


def test_a_size_that_the_blocks_do_not_divide_has_them_all():
    """17 rows in 4 blocks: 5, 4, 4 and 4 of them."""
    sides = [
        hide.random_blocks(key, (17, 17), share=1 / 16, blocks=4).sum()
        for key in jax.random.split(jax.random.key(2), 60)
    ]
    assert {int(area) for area in sides} == {16, 20, 25}


def test_hidden_pixels_are_the_images_mean_and_the_others_stay_bit_for_bit():
    before = images()
    shown, hidden = hide.hide_batch(jax.random.key(0), jnp.arange(6), before, config())
    before, shown, hidden = map(np.asarray, (before, shown, hidden))
    assert hidden.dtype == bool
    assert shown.shape == hidden.shape == before.shape
    np.testing.assert_array_equal(shown[~hidden], before[~hidden])
    for image, seen, where in zip(before, shown, hidden, strict=True):
        np.testing.assert_allclose(seen[where], image.mean(), rtol=1e-6)


def test_the_example_and_the_step_decide_not_the_place_in_the_batch():
    key, order = jax.random.key(0), np.array([3, 1, 5, 0, 4, 2])

    def hidden(key, examples):
        return np.asarray(hide.hide_batch(key, examples, images(), config())[1])

    first = hidden(key, jnp.arange(6))
    np.testing.assert_array_equal(hidden(key, jnp.asarray(order)), first[order])
    assert len({row.tobytes() for row in first}) == 6
    assert (hidden(jax.random.key(1), jnp.arange(6)) != first).any(axis=(1, 2, 3)).all()
