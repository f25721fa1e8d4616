"""Validation and the recalibration of BatchNorm, as pure functions of a batch."""

import jax
import numpy as np
import pytest
from scipy import signal
from scipy.special import expit

from pneumojax.evaluation import metrics
from pneumojax.training import steps
from tests.training.small_steps import (
    BATCH,
    SIZE,
    assert_close,
    batch,
    evaluation_batch,
    initial_variables,
    make_config,
    network,
    numpy_loss,
)

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture(scope='module')
def eval_step():
    return jax.jit(steps.make_eval_step(make_config()))


@pytest.fixture(scope='module')
def batch_stats_step():
    return jax.jit(steps.make_batch_stats_step(make_config()))


@pytest.mark.slow
def test_evaluation_equals_one_image_at_a_time_in_numpy(eval_step):
    rows, variables = evaluation_batch(), initial_variables()
    sums = eval_step(variables, rows)
    logits, _ = network(train=False)(variables['batch_stats'], rows['image'])
    expected = dict.fromkeys(('images', 'loss', 'dice', 'positives', 'positive_dice'), 0.0)
    for i in np.flatnonzero(rows['valid']):
        mask = rows['mask'][i]
        dice = metrics.dice(expit(np.asarray(logits[i, ..., 0])) > 0.5, mask)
        expected['images'] += 1
        expected['loss'] += numpy_loss(logits[i], mask)
        expected['dice'] += dice
        expected['positives'] += mask.any()
        expected['positive_dice'] += dice * mask.any()
    assert (expected['images'], expected['positives']) == (6, 5)
    assert sums.keys() == expected.keys()
    for name in expected:
        assert sums[name] == pytest.approx(expected[name], rel=1e-5), name


@pytest.mark.slow
def test_an_empty_prediction_of_an_empty_mask_scores_one(eval_step):
    rows, variables = evaluation_batch(), jax.tree.map(np.copy, initial_variables())
    variables['params']['head']['bias'] -= 1e4
    rows['mask'][:] = 0
    sums = eval_step(variables, rows)
    assert (sums['dice'], sums['positive_dice'], sums['positives']) == (6, 0, 0)


@pytest.mark.slow
def test_padding_counts_nowhere_and_images_do_not_see_each_other(eval_step):
    rows, variables = evaluation_batch(), initial_variables()
    sums = eval_step(variables, rows)
    other = evaluation_batch()
    other['image'][6:], other['mask'][6:] = 255, 1
    assert_close(eval_step(variables, other), sums, atol=0)
    alone = [eval_step(variables, rows | {'valid': np.arange(BATCH) == i}) for i in range(6)]
    assert_close(jax.tree.map(lambda *x: np.sum(x), *alone), sums)
    nothing = eval_step(variables, rows | {'valid': np.zeros(BATCH, bool)})
    assert all(value == 0 for value in nothing.values())


def numpy_stem_statistics(images):
    """Mean and variance of the first convolution's output, by SciPy in float64."""
    kernel = initial_variables()['params']['encoder']['conv1']['kernel'].astype(float)
    maps = np.stack([
        [signal.correlate2d(np.pad(x / 255, 3), kernel[:, :, 0, c], 'valid')[::2, ::2]
         for c in range(kernel.shape[-1])]
        for x in images.astype(float)
    ])  # fmt: skip
    assert maps.shape == (len(images), 4, SIZE // 2, SIZE // 2)
    return maps.mean(axis=(0, 2, 3)), maps.var(axis=(0, 2, 3))


@pytest.mark.slow
def test_recalibration_takes_exactly_the_statistics_of_the_batch(batch_stats_step):
    variables = initial_variables()
    # The statistics of before play no part.
    before = jax.tree.map(lambda s: s + 5, variables['batch_stats'])
    stats = [
        batch_stats_step(variables['params'], before, batch(seed))['encoder']['bn1']
        for seed in (0, 1)
    ]
    expected = [numpy_stem_statistics(batch(seed)['image']) for seed in (0, 1)]
    for ours, (mean, var) in zip(stats, expected, strict=True):
        np.testing.assert_allclose(ours['mean'], mean, atol=1e-6)
        np.testing.assert_allclose(ours['var'], var, rtol=1e-4)
    both = np.concatenate([batch(0)['image'], batch(1)['image']])
    average = (stats[0]['mean'] + stats[1]['mean']) / 2
    np.testing.assert_allclose(average, numpy_stem_statistics(both)[0], atol=1e-6)


@pytest.mark.slow
def test_with_its_own_statistics_a_batch_is_evaluated_as_it_was_trained(batch_stats_step):
    variables, images = initial_variables(), batch()['image']
    stats = batch_stats_step(variables['params'], variables['batch_stats'], batch())
    trained, _ = network(train=True)(variables['batch_stats'], images)
    evaluated, _ = network(train=False)(stats, images)
    np.testing.assert_allclose(evaluated, trained, atol=1e-4)
    before, _ = network(train=False)(variables['batch_stats'], images)
    assert np.abs(before - trained).max() > 0.1
