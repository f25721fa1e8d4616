"""The operations and the pipeline: keys, probabilities, ranges, order."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from configs import base
from pneumojax.augment import geometric, intensity, warp
from pneumojax.augment.augment import _draw, augment, augment_batch, choose

SIZE, BATCH = 32, 8
PROBABILITIES = ('flip', 'vertical_flip', 'intensity', 'warp', 'affine', 'crop')


def public_functions(module):
    return [
        function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith('_')
    ]


GEOMETRIC = public_functions(geometric)
INTENSITY = [f for f in public_functions(intensity) if not f.__name__.startswith('adjust_')]
DRAWS = {
    geometric.elastic_transform: (3, 2),
    geometric.grid_distortion: (2, 5),
    geometric.optical_distortion: (3,),
    geometric.shift_scale_rotate: (4,),
    geometric.random_sized_crop: (3,),
    **dict.fromkeys(INTENSITY, ()),
}


def sampled(operation, key=None):
    """(draws, image, mask) -> (image, mask), for an operation on positions or on the image."""
    noise = {'noise_key': key} if operation is geometric.elastic_transform else {}

    def run(draws, image, mask, **limits):
        if operation in INTENSITY:
            return operation(draws, image, **limits), mask
        points = operation(draws, warp.pixels(*image.shape), **noise, **limits)
        return warp.sample(image, mask, points)

    return run


def base_config(**changes):
    """The augmentation of configs/base.py with other values."""
    config = base.get_config().augment
    for name, value in changes.items():
        config[name] = value
    return config


def only(**changes):
    return base_config(**{**dict.fromkeys(PROBABILITIES, 0.0), **changes})


def example(size=SIZE, seed=0):
    noise = np.random.default_rng(seed).random((size, size))
    image = ndimage.gaussian_filter(noise, 3)
    image = ((image - image.min()) / np.ptp(image)).astype(np.float32)
    return jnp.asarray(image), jnp.asarray(image > 0.5, jnp.float32)


def batch(size=SIZE):
    pairs = [example(size, seed) for seed in range(BATCH)]
    return tuple(jnp.stack(part)[..., None] for part in zip(*pairs, strict=True))


@pytest.fixture(scope='module')
def full():
    """The whole pipeline compiled once: every operation on, with the documented limits."""
    config = base_config(**dict.fromkeys(PROBABILITIES, 0.5))
    return jax.jit(lambda key, ids, images, masks: augment_batch(key, ids, images, masks, config))


@pytest.mark.parametrize('operation', GEOMETRIC + INTENSITY)
def test_operations_take_draws_first_and_limits_by_keyword_with_defaults(operation):
    parameters = list(inspect.signature(operation).parameters.values())
    value = 'points' if operation in GEOMETRIC else 'image'
    assert [p.name for p in parameters[:2]] == ['draws' if DRAWS[operation] else 'draw', value]
    assert all(p.default is p.empty for p in parameters[:2])
    limits = [p for p in parameters[2:] if p.name != 'noise_key']
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[2:])
    assert all(p.default is not p.empty for p in limits)
    assert limits


def test_the_defaults_are_those_of_the_base_config():
    config = base_config()
    names = {
        geometric.elastic_transform: ('elastic_alpha', 'elastic_sigma', 'elastic_affine'),
        geometric.grid_distortion: ('grid_distort',),
        geometric.optical_distortion: ('optical_distort', 'optical_shift'),
        geometric.shift_scale_rotate: ('shift', 'scale', 'rotate', 'border'),
        geometric.random_sized_crop: ('crop_min',),
        intensity.random_contrast: ('contrast',),
        intensity.random_gamma: ('gamma',),
        intensity.random_brightness: ('brightness',),
    }
    assert set(names) == {*GEOMETRIC, *INTENSITY}
    for operation, keys in names.items():
        parameters = list(inspect.signature(operation).parameters.values())[2:]
        defaults = [p.default for p in parameters if p.default is not p.empty]
        assert defaults == [config[key] for key in keys]


@pytest.mark.parametrize('operation', GEOMETRIC + INTENSITY)
def test_operations_keep_shape_range_and_type_and_follow_their_draws(operation):
    image, mask = example()
    image = jnp.clip(2 * image - 0.5, 0, 1)  # reaches both ends of the range
    draws = jax.random.uniform(jax.random.key(0), (8, *DRAWS[operation]), minval=-1)
    run = jax.jit(jax.vmap(sampled(operation, jax.random.key(1)), in_axes=(0, None, None)))
    images, masks = run(draws, image, mask)
    assert images.shape == (8, *image.shape)
    assert masks.shape == (8, *mask.shape)
    assert images.dtype == masks.dtype == jnp.float32
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert set(np.unique(masks)) <= {0, 1}
    again = run(draws, image, mask)[0]
    np.testing.assert_array_equal(images, again)
    assert len({np.asarray(one).tobytes() for one in images}) > 1


@pytest.mark.parametrize('operation', GEOMETRIC + INTENSITY)
def test_draws_of_0_change_nothing(operation):
    image, mask = example()
    still = {'alpha': 0.0} if operation is geometric.elastic_transform else {}
    run = jax.jit(lambda *arrays: sampled(operation, jax.random.key(1))(*arrays, **still))
    result = run(jnp.zeros(DRAWS[operation]), image, mask)
    # Sums over cells and logarithms round; crop and affine run without being drawn: bit for bit.
    exact = operation in (geometric.random_sized_crop, geometric.shift_scale_rotate)
    np.testing.assert_allclose(result[0], image, rtol=0, atol=0 if exact else 1e-5)
    np.testing.assert_array_equal(result[1], mask)


@pytest.mark.parametrize(('name', 'axis'), [('flip', 1), ('vertical_flip', 0)])
def test_flipping_twice_is_the_identity(name, axis):
    image, mask = example()
    config = only(**{name: 1.0})
    flipped = augment(jax.random.key(0), image, mask, config)
    twice = augment(jax.random.key(0), *flipped, config)
    np.testing.assert_array_equal(flipped[0], np.flip(image, axis))
    np.testing.assert_array_equal(flipped[1], np.flip(mask, axis))
    np.testing.assert_array_equal(twice[0], image)
    np.testing.assert_array_equal(twice[1], mask)


def test_choices_are_as_often_as_they_say():
    count = 3000
    chances = (jnp.arange(count) + 0.5) / count
    chosen = np.asarray(jax.vmap(lambda chance: choose(chance, 0.7, 3))(chances))
    for value, share in ((0, 0.7 / 3), (1, 0.7 / 3), (2, 0.7 / 3), (3, 0.3)):
        assert (chosen == value).mean() == pytest.approx(share, abs=1 / count)
    assert (np.asarray(jax.vmap(lambda chance: choose(chance, 1.0, 3))(chances)) < 3).all()
    assert int(choose(jnp.float32(0.5), 1e-30, 3)) == 3


def test_all_probabilities_zero_give_back_the_input_bit_for_bit():
    images, masks = batch()
    result = augment_batch(jax.random.key(0), jnp.arange(BATCH), images, masks, only())
    np.testing.assert_array_equal(result[0], images)
    np.testing.assert_array_equal(result[1], masks)


def test_examples_for_which_nothing_is_drawn_come_back_bit_for_bit():
    # Tiny, not 0: everything is computed and then not selected.
    config = base_config(**dict.fromkeys(PROBABILITIES, 1e-30))
    images, masks = batch()
    run = jax.jit(lambda *arrays: augment_batch(*arrays, config))
    result = run(jax.random.key(0), jnp.arange(BATCH), images, masks)
    np.testing.assert_array_equal(result[0], images)
    np.testing.assert_array_equal(result[1], masks)


@pytest.mark.slow
def test_one_by_one_and_all_at_once_are_the_same(full):
    # What GPUs compute, all at once, against what a CPU or a TPU does.
    config = base_config(**dict.fromkeys(PROBABILITIES, 0.5))
    images, masks = batch()
    key, ids = jax.random.key(5), jnp.arange(BATCH) + 100
    one_by_one = full(key, ids, images, masks)
    keys = jax.vmap(lambda example: jax.random.fold_in(key, example))(ids)
    run = jax.jit(jax.vmap(lambda *arrays: augment(*arrays, config)))
    at_once = run(keys, images[..., 0], masks[..., 0])
    # Positions that round to another pixel once in a million are allowed.
    assert (np.abs(one_by_one[0][..., 0] - at_once[0]) > 1e-4).mean() < 1e-3
    assert (one_by_one[1][..., 0] != at_once[1]).mean() < 1e-3


@pytest.mark.slow
def test_jit_changes_nothing(full):
    config = base_config(**dict.fromkeys(PROBABILITIES, 0.5))
    images, masks = batch()
    key, ids = jax.random.key(5), jnp.arange(BATCH) + 100
    together = full(key, ids, images, masks)
    for i in (0, 3):
        one_key = jax.random.fold_in(key, ids[i])
        image, mask = augment(one_key, images[i, ..., 0], masks[i, ..., 0], config)
        np.testing.assert_allclose(together[0][i, ..., 0], image, atol=2e-3)
        assert (together[1][i, ..., 0] != mask).mean() < 0.01


def test_the_example_index_decides_not_the_place_in_the_batch(full):
    images, masks = batch()
    key, ids = jax.random.key(1), jnp.arange(BATCH) * 7
    order = jnp.array(np.random.default_rng(0).permutation(BATCH))
    straight = full(key, ids, images, masks)
    permuted = full(key, ids[order], images[order], masks[order])
    np.testing.assert_array_equal(permuted[0], straight[0][order])
    np.testing.assert_array_equal(permuted[1], straight[1][order])


def test_same_key_same_output_other_step_or_example_another(full):
    images, masks = (jnp.stack([one] * BATCH)[..., None] for one in example())
    ids = jnp.arange(BATCH)
    step = [jax.random.fold_in(jax.random.key(0), i) for i in (1, 1, 2)]
    first, again, later = (np.asarray(full(key, ids, images, masks)[0]) for key in step)
    np.testing.assert_array_equal(first, again)
    assert len({one.tobytes() for one in first}) == BATCH
    assert all((a != b).any() for a, b in zip(first, later, strict=True))
    same_id = full(step[0], ids * 0 + 3, images, masks)[0]
    assert len({np.asarray(one).tobytes() for one in same_id}) == 1


def test_a_gpu_computes_all_at_once_and_a_tpu_one_by_one():
    traced = jax.jit(
        lambda *arrays: augment_batch(jax.random.key(0), *arrays, base_config())
    ).trace(jnp.arange(BATCH), *batch(16))
    for platform, loops in (('cuda', False), ('tpu', True)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ('stablehlo.while' in text) == loops, platform


@pytest.mark.parametrize('name', PROBABILITIES)
def test_probabilities_hold_over_many_keys(name):
    image, mask = example(16)
    config, count = only(**{name: 0.3}), 600
    run = jax.jit(jax.vmap(lambda key: augment(key, image, mask, config)[0]))
    changed = np.asarray((run(jax.random.split(jax.random.key(2), count)) != image).any((1, 2)))
    # Four standard deviations of a binomial share.
    assert abs(changed.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / count)


@pytest.mark.slow
def test_mask_moves_with_the_image(full):
    # The image is the mask: where both are sampled alike, half-way grey separates them the same.
    disc = np.hypot(*(np.indices((SIZE, SIZE)) - SIZE / 2 + 3)) < 9
    config = base_config(**{**dict.fromkeys(PROBABILITIES, 0.7), 'intensity': 0.0})
    masks = jnp.asarray(np.stack([disc] * 32)[..., None], jnp.float32)
    run = jax.jit(lambda *arrays: augment_batch(*arrays, config))
    images, moved = run(jax.random.key(0), jnp.arange(32), masks, masks)
    differs = np.asarray((images > 0.5) != (moved > 0.5))[..., 0]
    edge = np.asarray((images > 0.02) & (images < 0.98))[..., 0]
    assert not (differs & ~edge).any()
    assert differs.mean() < 0.05


@pytest.mark.slow
def test_one_sampling_equals_the_operations_one_after_the_other():
    size, config = 64, base_config(**{**dict.fromkeys(PROBABILITIES, 1.0), 'intensity': 0.0})
    images, masks = example(size, 1)
    images = jnp.asarray(ndimage.gaussian_filter(np.asarray(images), 4))

    def sequence(key):
        numbers_key, noise_key, _ = jax.random.split(key, 3)
        chances, draws = _draw(numbers_key, config)
        image, mask = images[::-1, ::-1], masks[::-1, ::-1]  # both flips
        distorted = [
            sampled(operation, noise_key)(draws[name], image, mask)
            for name, operation in (
                ('elastic', geometric.elastic_transform), ('grid', geometric.grid_distortion),
                ('optical', geometric.optical_distortion),
            )
        ]  # fmt: skip
        which = choose(chances['warp'], 1.0, 3)
        image, mask = jax.tree.map(lambda *results: jnp.stack(results)[which], *distorted)
        image, mask = sampled(geometric.shift_scale_rotate)(draws['affine'], image, mask)
        return sampled(geometric.random_sized_crop)(draws['crop'], image, mask)

    keys = jax.random.split(jax.random.key(0), 24)
    expected_images, expected_masks = jax.jit(jax.vmap(sequence))(keys)
    actual = jax.jit(jax.vmap(lambda key: augment(key, images, masks, config)))(keys)
    difference = np.abs(actual[0] - expected_images)
    assert difference.mean() < 0.005
    assert (difference > 0.05).mean() < 0.02
    # Every sampling in sequence moves the mask's edge by up to half a pixel, and there are three.
    assert (actual[1] != expected_masks).mean() < 0.06
    # and the three distortions differ enough for this to mean something
    assert np.abs(actual[0][1:] - actual[0][:-1]).mean() > 0.05


CHANGES = {
    **{name: {name: 1.0} for name in PROBABILITIES},
    'contrast': {'intensity': 1.0, 'contrast': 0.9},
    'gamma': {'intensity': 1.0, 'gamma': (300, 301)},
    'brightness': {'intensity': 1.0, 'brightness': 0.9},
    'elastic_alpha': {'warp': 1.0, 'elastic_alpha': 900.0},
    'elastic_sigma': {'warp': 1.0, 'elastic_sigma': 30.0},
    'elastic_affine': {'warp': 1.0, 'elastic_affine': 90.0},
    'grid_steps': {'warp': 1.0, 'grid_steps': 3},
    'grid_distort': {'warp': 1.0, 'grid_distort': 0.9},
    'optical_distort': {'warp': 1.0, 'optical_distort': 0.1},
    'optical_shift': {'warp': 1.0, 'optical_shift': 90.0},
    'shift': {'affine': 1.0, 'shift': 0.6},
    'scale': {'affine': 1.0, 'scale': 0.6},
    'rotate': {'affine': 1.0, 'rotate': 90.0},
    'border': {'affine': 1.0, 'border': 'reflect'},
    'crop_min': {'crop': 1.0, 'crop_min': 0.4},
    'window': {'window': 16},
    'window_on_lesion': {'window': 16, 'window_on_lesion': 1.0},
}


def test_every_key_is_tested_to_change_something():
    assert {*CHANGES, 'hide', 'hide_blocks'} == set(base_config())  # those: test_hide.py


@pytest.mark.parametrize('name', CHANGES)
def test_every_key_reaches_the_traced_program(name):
    def program(config):
        return jax.make_jaxpr(lambda key, *pair: augment(key, *pair, config))(
            jax.random.key(0), *example(16)
        )

    before, after = (program(config) for config in configs_for(name))
    same_constants = all(map(np.array_equal, before.consts, after.consts))
    assert str(before) != str(after) or not same_constants


@pytest.mark.slow
@pytest.mark.parametrize('name', CHANGES)
def test_every_key_changes_the_result(name):
    keys = jax.random.split(jax.random.key(0), 16)

    def run(config):
        return np.asarray(jax.jit(jax.vmap(lambda k: augment(k, *example(24), config)[0]))(keys))

    before, after = (run(config) for config in configs_for(name))
    assert before.shape != after.shape or (before != after).any()


def configs_for(name):
    """Without and with the change of one key, the operation that it belongs to being on."""
    if name == 'window_on_lesion':
        return only(window=16), only(**CHANGES[name])
    switch = {} if name in PROBABILITIES else dict.fromkeys(
        set(CHANGES[name]) & set(PROBABILITIES), 1.0
    )  # fmt: skip
    return only(**switch), only(**CHANGES[name])


def test_pixel_sizes_grow_with_the_image():
    # The same displacement as a share of the image: its spread is alike at both sizes.
    def spread(size):
        points = geometric.elastic_transform(
            jnp.zeros((3, 2)), warp.pixels(size, size), noise_key=jax.random.key(0)
        )
        inner = np.s_[size // 4 : -size // 4, size // 4 : -size // 4]
        return float(jnp.std((points.x - warp.pixels(size, size).x)[inner])) / size

    assert spread(256) == pytest.approx(spread(512), rel=0.1)
    # White noise of variance 1/3 smoothed with sigma 6 and multiplied by 120, over 512.
    assert spread(512) == pytest.approx(120 / np.sqrt(3) / (2 * np.sqrt(np.pi) * 6) / 512, rel=0.1)
