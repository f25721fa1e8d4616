"""Equal configurations share a function, and with it what JAX compiled; others do not."""

import jax
import pytest

from configs import base
from pneumojax.models import build
from pneumojax.system import memoize as memoize_lib
from pneumojax.training import steps


def test_equal_configurations_share_a_function_that_is_traced_once():
    traced = []

    @memoize_lib.memoize('model', 'loss')
    def make(config, power):
        def function(x):
            traced.append(x)
            return config.loss.dice * x**power

        return function

    first, second = base.get_config(), base.get_config()
    second.seed, second.optimizer.learning_rate = 7, 0.5  # which the function does not read
    assert make(first, 2) is make(second, 2)
    assert [jax.jit(make(c, 2))(3.0) for c in (first, second)] == [9, 9]
    assert len(traced) == 1
    assert make(first, 3) is not make(first, 2)

    first.loss.dice = 2.0  # of the caller's configuration: the function made before keeps its own
    assert make(second, 2)(3.0) == 9
    assert make(first, 2)(3.0) == 18


def test_old_functions_are_let_go():
    built = memoize_lib.memoize('seed')(lambda config, number: object())
    config = base.get_config()
    kept = [built(config, number) for number in range(memoize_lib._KEPT + 1)]
    assert built(config, memoize_lib._KEPT) is kept[-1]
    assert built(config, 0) is not kept[0]


@pytest.mark.parametrize(
    'key', ['model.width', 'model.normalization', 'loss.bce', 'loss.dice', 'loss.smooth']
)
def test_steps_differ_where_what_they_read_does(key):
    config, other = base.get_config(), base.get_config()
    group, name = key.split('.')
    other[group][name] = {'width': 8, 'normalization': 'imagenet'}.get(name, 0.25)
    assert steps.make_eval_step(config, None) is steps.make_eval_step(base.get_config(), None)
    assert steps.make_eval_step(config, None) is not steps.make_eval_step(other, None)
    assert steps.make_eval_step(config, 'batch') is not steps.make_eval_step(config, None)
    same = group == 'loss'
    found = steps.make_batch_stats_step(config, None) is steps.make_batch_stats_step(other, None)
    assert found == same


@pytest.mark.parametrize('restoration', [0.0, 1.0])
def test_validation_reads_the_augmentation_only_where_it_hides_blocks(restoration):
    config, other = base.get_config(), base.get_config()
    other.augment.flip = 0.25
    for each in (config, other):
        each.loss.restoration = restoration
    shared = steps.make_eval_step(config, None) is steps.make_eval_step(other, None)
    assert shared == (not restoration)


def test_weights_still_follow_the_seed():
    config = base.get_config()
    config.model.width, config.model.stage_sizes = 4, (1, 1, 1, 1)
    heads = []
    for config.seed in (0, 0, 1):
        variables = build.initial_variables(config)
        heads.append(float(variables['params']['head']['kernel'][0, 0, 0, 0]))
    assert heads[0] == heads[1] != heads[2]
