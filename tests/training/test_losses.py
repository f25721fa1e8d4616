"""The losses against closed forms, NumPy, optax and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from scipy.special import expit

from pneumojax.training import losses

SHAPE = (3, 5, 4, 1)
WEIGHTS = ConfigDict({
    'bce': 0.25, 'dice': 3.0, 'focal': 0.0, 'classification': 0.0, 'smooth': 0.5,
    'focal_gamma': 2.0, 'dice_reduction': 'batch',
})  # fmt: skip


def batch(seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, SHAPE)
    return logits.astype(np.float32), (rng.random(SHAPE) < 0.3).astype(np.float32)


def numpy_bce(logits, masks):
    p = expit(logits.astype(np.float64))
    return -np.mean(np.where(masks > 0, np.log(p), np.log1p(-p)))


def numpy_dice(logits, masks, smooth):
    p = expit(logits.astype(np.float64)).ravel()
    return 1 - (2 * np.dot(p, masks.ravel()) + smooth) / (p.sum() + masks.sum() + smooth)


def numpy_focal(logits, masks, gamma):
    """By its definition, pixel by pixel."""
    total = 0.0
    for x, t in zip(logits.astype(np.float64).ravel(), masks.ravel(), strict=True):
        q = expit(x) if t else expit(-x)
        total -= (1 - q) ** gamma * np.log(q)
    return total / logits.size


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('smooth', [0.5, 1.0, 10.0])
def test_losses_equal_their_definitions_in_numpy(seed, smooth):
    logits, masks = batch(seed)
    assert losses.bce(logits, masks) == pytest.approx(numpy_bce(logits, masks), rel=1e-6)
    expected = numpy_dice(logits, masks, smooth)
    assert losses.soft_dice(logits, masks, smooth) == pytest.approx(expected, rel=1e-6)


def restoring(seed=0):
    rng = np.random.default_rng(seed)
    images, predicted = rng.random(SHAPE), rng.normal(0, 2, SHAPE)
    hidden = rng.random(SHAPE) < 0.4
    return predicted.astype(np.float32), images.astype(np.float32), hidden


@pytest.mark.parametrize('seed', range(3))
def test_restoration_equals_its_definition_in_numpy(seed):
    predicted, images, hidden = restoring(seed)
    each = []
    for one, image, where in zip(
        predicted.astype(float), images.astype(float), hidden, strict=True
    ):
        wanted = (image - image.mean()) / (image.std() + 1e-3)
        each.append(np.abs(one - wanted)[where].mean())
    assert losses.restoration(predicted, images, hidden) == pytest.approx(np.mean(each), rel=1e-5)


def test_restoration_asks_for_standardized_intensities_of_hidden_pixels_only():
    predicted, images, hidden = restoring()
    # What is predicted of visible pixels has no influence, not even by its gradient.
    gradient = np.asarray(jax.grad(losses.restoration)(predicted, images, hidden))
    assert (gradient[~hidden] == 0).all()
    assert (np.abs(gradient[hidden]) > 0).all()
    # An image of black and white halves: -1 and 1, whatever its exposure, but for the 1e-3.
    halves = np.zeros((1, 4, 4, 1), np.float32)
    halves[:, 2:] = 0.8
    everywhere = np.ones(halves.shape, bool)
    assert losses.restoration(np.sign(halves - 0.4), halves, everywhere) < 0.003
    assert losses.restoration(np.sign(0.4 - halves), halves, everywhere) > 1.99


def test_restoration_of_one_grey_is_finite():
    grey, hidden = np.full((1, 4, 4, 1), 0.3, np.float32), np.ones((1, 4, 4, 1), bool)
    assert losses.restoration(np.zeros_like(grey), grey, hidden) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize('smooth', [0.5, 1.0])
def test_soft_dice_equals_that_of_optax(smooth):
    logits, masks = batch()
    # Theirs divides numerator and denominator by two before it adds `smooth`.
    theirs = optax.losses.dice_loss(logits, masks, smooth=smooth / 2, axis=(0, 1, 2))
    assert losses.soft_dice(logits, masks, smooth) == pytest.approx(float(theirs), rel=1e-6)


def test_bce_without_knowledge_is_the_logarithm_of_two():
    _, masks = batch()
    assert losses.bce(jnp.zeros(SHAPE), masks) == pytest.approx(np.log(2), rel=1e-6)


def test_bce_of_certain_logits_is_linear_and_finite():
    ones = jnp.ones(SHAPE)
    assert losses.bce(1000 * ones, ones) == 0
    assert losses.bce(-1000 * ones, ones) == pytest.approx(1000, rel=1e-6)
    gradient = jax.grad(losses.bce)(-1000 * ones, ones)
    np.testing.assert_allclose(gradient, -1 / ones.size, rtol=1e-6)


def test_soft_dice_from_perfect_to_wrong():
    _, masks = batch()
    n = masks.size
    perfect, wrong = 100.0 * (2 * masks - 1), -100.0 * (2 * masks - 1)
    assert losses.soft_dice(perfect, masks) == pytest.approx(0, abs=1e-6)
    # No overlap, and prediction and truth together cover the batch.
    assert losses.soft_dice(wrong, masks) == pytest.approx(1 - 1 / (n + 1), rel=1e-6)
    # p = 1/2 everywhere: 2 * (T / 2) over n / 2 + T.
    expected = 1 - (masks.sum() + 1) / (n / 2 + masks.sum() + 1)
    assert losses.soft_dice(jnp.zeros(SHAPE), masks) == pytest.approx(expected, rel=1e-6)


def test_soft_dice_of_a_batch_without_lesions():
    empty = jnp.zeros(SHAPE)
    assert losses.soft_dice(empty - 100.0, empty) == pytest.approx(0, abs=1e-6)
    for smooth in (1.0, 4.0):
        expected = 1 - smooth / (empty.size / 2 + smooth)
        assert losses.soft_dice(empty, empty, smooth) == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(jax.grad(losses.soft_dice)(empty - 100.0, empty)).all()


def test_soft_dice_is_one_ratio_for_the_whole_batch():
    logits, masks = batch()
    masks[1] = 0
    together = float(losses.soft_dice(logits, masks))
    flat = (1, -1, 1, 1)
    as_one_image = losses.soft_dice(logits.reshape(flat), masks.reshape(flat))
    assert together == pytest.approx(float(as_one_image), rel=1e-6)
    per_image = np.mean([numpy_dice(x, t, 1.0) for x, t in zip(logits, masks, strict=True)])
    assert abs(together - per_image) > 0.01


def test_combined_weighs_the_parts_as_the_config_says():
    logits, masks = batch()
    loss, parts = losses.combined(logits, masks, WEIGHTS)
    bce, dice = numpy_bce(logits, masks), numpy_dice(logits, masks, 0.5)
    assert loss == pytest.approx(0.25 * bce + 3 * dice, rel=1e-6)
    assert parts['bce'] == pytest.approx(bce, rel=1e-6)
    assert parts['dice_loss'] == pytest.approx(dice, rel=1e-6)
    assert {x.dtype for x in (loss, *parts.values())} == {jnp.dtype('float32')}
    assert {x.shape for x in (loss, *parts.values())} == {()}


def test_combined_weighs_all_three():
    logits, masks = batch()
    weights = WEIGHTS.copy_and_resolve_references()
    weights.focal, weights.focal_gamma, weights.dice_reduction = 4.0, 1.5, 'image'
    loss, parts = losses.combined(logits, masks, weights)
    per_image = np.mean([numpy_dice(x, t, 0.5) for x, t in zip(logits, masks, strict=True)])
    focal = numpy_focal(logits, masks, 1.5)
    assert loss == pytest.approx(
        0.25 * numpy_bce(logits, masks) + 3 * per_image + 4 * focal, rel=1e-6
    )
    assert parts['focal'] == pytest.approx(focal, rel=1e-6)
    assert parts['dice_loss'] == pytest.approx(per_image, rel=1e-6)


def test_the_image_loss_asks_whether_the_mask_is_empty():
    logits, masks = batch()
    masks[1] = 0
    weights = WEIGHTS.copy_and_resolve_references()
    weights.classification = 0.1
    image_logits = np.array([2.0, -1.5, 0.5], np.float32)
    loss, parts = losses.combined(logits, masks, weights, image_logits=image_logits)
    expected = -np.mean(np.log(expit(np.array([2.0, 1.5, 0.5], np.float64))))
    assert parts['image'] == pytest.approx(expected, rel=1e-6)
    without = float(losses.combined(logits, masks, WEIGHTS)[0])
    assert loss == pytest.approx(without + 0.1 * expected, rel=1e-6)


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0, 3.7])
def test_focal_equals_its_definition_in_numpy(gamma):
    logits, masks = batch()
    expected = numpy_focal(logits, masks, gamma)
    assert losses.focal(logits, masks, gamma) == pytest.approx(expected, rel=2e-6)
    if gamma == 0:
        assert losses.focal(logits, masks, 0.0) == pytest.approx(float(losses.bce(logits, masks)))


@pytest.mark.parametrize('gamma', [0.5, 1.0, 2.0])
def test_focal_without_knowledge_and_when_certain(gamma):
    ones = jnp.ones(SHAPE)
    _, masks = batch()
    # p = 1/2 everywhere.
    assert losses.focal(0 * ones, masks, gamma) == pytest.approx(0.5**gamma * np.log(2), rel=1e-6)
    # Sure and right: nothing. Sure and wrong: the logit itself, with a gradient to learn from.
    for logit, value, slope in ((1000.0, 0.0, 0.0), (-1000.0, 1000.0, -1.0)):
        loss, gradient = jax.value_and_grad(losses.focal)(logit * ones, ones, gamma)
        assert loss == pytest.approx(value, rel=1e-6)
        np.testing.assert_allclose(gradient, slope / ones.size, rtol=1e-6)


def test_dice_over_images_is_the_mean_of_each_alone():
    logits, masks = batch()
    masks[1] = 0
    per_image = np.mean([numpy_dice(x, t, 1.0) for x, t in zip(logits, masks, strict=True)])
    assert losses.soft_dice(logits, masks, reduction='image') == pytest.approx(per_image, rel=1e-6)


@pytest.mark.parametrize('reduction', ['batch', 'image'])
def test_over_several_devices_the_losses_are_those_of_the_whole_batch(reduction):
    """vmap with an axis name computes what pmap does on as many devices."""
    logits, masks = (x.reshape(3, 1, *SHAPE[1:]) for x in batch())
    weights = WEIGHTS.copy_and_resolve_references()
    weights.focal, weights.classification, weights.dice_reduction = 4.0, 0.5, reduction
    scores = np.array([[2.0], [-1.5], [0.5]], np.float32)
    parts = jax.vmap(lambda x, t, s: losses.combined(x, t, weights, 'batch', s), axis_name='batch')
    together = losses.combined(*batch(), weights, image_logits=scores[:, 0])
    spread = parts(logits, masks, scores)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, [b] * 3, rtol=1e-6), spread, together)


def test_over_several_devices_restoration_is_that_of_the_whole_batch():
    spread = jax.vmap(lambda *rows: losses.restoration(*rows, 'batch'), axis_name='batch')
    parts = spread(*(x.reshape(3, 1, *SHAPE[1:]) for x in restoring()))
    np.testing.assert_allclose(parts, [losses.restoration(*restoring())] * 3, rtol=1e-6)


def test_gradients_equal_finite_differences():
    logits, masks = (x.astype(np.float64) for x in batch())
    step = 1e-5
    weights = WEIGHTS.copy_and_resolve_references()
    weights.focal = 2.0
    with jax.enable_x64(True):
        gradient = np.asarray(jax.grad(lambda x: losses.combined(x, masks, weights)[0])(logits))
        assert gradient.dtype == np.float64
        for index in np.ndindex(*SHAPE):
            ends = []
            for sign in (-1, 1):
                moved = logits.copy()
                moved[index] += sign * step
                ends.append(
                    0.25 * numpy_bce(moved, masks)
                    + 3 * numpy_dice(moved, masks, 0.5)
                    + 2 * numpy_focal(moved, masks, 2.0)
                )
            assert gradient[index] == pytest.approx((ends[1] - ends[0]) / (2 * step), abs=1e-9)
