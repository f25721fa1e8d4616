"""The optimizer against updates written out by hand, as PyTorch documents them, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from pneumojax.data.sampling import Plan
from pneumojax.training import averaging, optimizer

START = {'encoder': {'w': np.array([1.0, -2.0, 3.0])}, 'head': np.array([[0.5, -0.5]])}
EVEN = (4, 8, 12)  # steps done when each epoch ends
UNEVEN = (3, 10, 12, 17)


def plan(epoch_ends=EVEN):
    ends = np.asarray(epoch_ends, np.int32)
    return Plan(np.zeros(2 * ends[-1], np.int32), ends, 2)


def config(epoch_ends=EVEN, **changes):
    config = base.get_config()
    config.num_epochs = len(epoch_ends)
    config.averaging.kind = 'none'
    config.optimizer.learning_rate, config.optimizer.final_learning_rate = 0.1, 0.01
    config.update_from_flattened_dict({k.replace('__', '.'): v for k, v in changes.items()})
    return config


def gradients(steps, seed=0):
    rng = np.random.default_rng(seed)
    return [jax.tree.map(lambda x: rng.normal(size=x.shape), START) for _ in range(steps)]


def run(config, epoch_ends, gradients):
    """The weights after each batch (float64 copies), and the last state."""
    tx = optimizer.make_optimizer(config, plan(epoch_ends))
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), START)
    state = tx.init(params)

    @jax.jit
    def step(gradient, state, params):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    weights = []
    for gradient in gradients:
        gradient = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), gradient)
        params, state = step(gradient, state, params)
        weights.append(jax.tree.map(lambda x: np.asarray(x, np.float64), params))
    return weights, state


def numpy_rate(count, steps, top=0.1, bottom=0.01):
    return bottom + (top - bottom) * (1 + np.cos(np.pi * count / steps)) / 2


def numpy_run(method, gradients, steps, **options):
    """PyTorch's algorithms, one leaf at a time; `steps` is the length of the half-cosine."""
    weights = []
    state = jax.tree.map(lambda x: {'w': x, 'm': 0 * x, 'v': 0 * x}, START)
    is_leaf = lambda x: 'm' in x  # noqa: E731
    for count, gradient in enumerate(gradients):
        state = jax.tree.map(
            lambda s, g: method(s, g, count + 1, numpy_rate(count, steps), **options),  # noqa: B023
            state, gradient, is_leaf=is_leaf,
        )  # fmt: skip
        weights.append(jax.tree.map(lambda s: s['w'], state, is_leaf=is_leaf))
    return weights


def sgd(s, g, t, rate, decay=0.0):
    m = 0.9 * s['m'] + g + decay * s['w']
    return {'w': s['w'] - rate * m, 'm': m, 'v': s['v']}


def adam(s, g, t, rate, decay=0.0, decoupled=0.0):
    w = s['w'] * (1 - rate * decoupled)
    g = g + decay * s['w']
    m, v = 0.9 * s['m'] + 0.1 * g, 0.999 * s['v'] + 0.001 * g * g
    w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return {'w': w, 'm': m, 'v': v}


def assert_close(actual, expected, atol=2e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=0), actual, expected)


def schedule_of(updates, warmup=0, **changes):
    """One update an epoch."""
    ends = tuple(range(1, updates + 1))
    changes['optimizer__warmup_epochs'] = float(warmup)
    return optimizer.learning_rate(config(ends, **changes), plan(ends))


def test_the_cosine_falls_from_the_first_rate_to_the_last():
    changes = {'optimizer__learning_rate': 1e-3, 'optimizer__final_learning_rate': 1e-5}
    schedule = schedule_of(100, **changes)
    for count, rate in ((0, 1e-3), (50, (1e-3 + 1e-5) / 2), (100, 1e-5), (130, 1e-5)):
        assert schedule(count) == pytest.approx(rate, rel=1e-5)
    for count in (1, 17, 25, 75, 99):
        assert schedule(count) == pytest.approx(numpy_rate(count, 100, 1e-3, 1e-5), rel=1e-5)


def test_warm_up_rises_linearly_and_the_cosine_follows():
    schedule = schedule_of(24, warmup=4)
    rising = [float(schedule(count)) for count in range(5)]
    np.testing.assert_allclose(rising, 0.1 * np.arange(1, 6) / 5, rtol=1e-6)
    for count in (4, 9, 14, 24):
        assert schedule(count) == pytest.approx(numpy_rate(count - 4, 20), rel=1e-5)
    only_rising = schedule_of(3, warmup=3)
    assert [float(only_rising(c)) for c in range(3)] == pytest.approx([0.025, 0.05, 0.075])


@pytest.mark.parametrize(
    ('accumulate', 'epochs', 'updates'),
    [
        (1, 0, 0),
        (1, 2, 10),
        (1, 2.5, 11),
        (1, 3.4, 14),
        (2, 2, 5),
        (2, 3, 6),
        (4, 4, 4),
        (1, 9, 17),
    ],
)
def test_updates_done_after_epochs_of_different_length(accumulate, epochs, updates):
    assert optimizer.updates_done(UNEVEN, accumulate, epochs) == updates


def test_the_schedule_runs_over_updates_with_warm_up_in_epochs():
    rate = optimizer.learning_rate(
        config(UNEVEN, optimizer__accumulate=2, optimizer__warmup_epochs=2.0), plan(UNEVEN)
    )
    assert rate(0) == pytest.approx(0.1 / 6)  # 10 batches, 5 updates of warm-up
    assert rate(5) == pytest.approx(0.1)
    assert rate(8) == pytest.approx(0.01)  # 17 batches, 8 updates in all


@pytest.mark.parametrize(
    ('name', 'decay', 'reference', 'options'),
    [
        ('sgd', 0.0, sgd, {}),
        ('sgd', 0.3, sgd, {'decay': 0.3}),
        ('adam', 0.0, adam, {}),
        ('adam', 0.3, adam, {'decay': 0.3}),
        ('adamw', 0.0, adam, {}),
        ('adamw', 0.3, adam, {'decoupled': 0.3}),
    ],
)
def test_methods_and_their_weight_decay_are_pytorchs(name, decay, reference, options):
    steps = gradients(EVEN[-1])
    weights, _ = run(
        config(optimizer__name=name, optimizer__weight_decay=decay), EVEN, steps
    )  # fmt: skip
    expected = numpy_run(reference, steps, EVEN[-1], **options)
    for done, (ours, theirs) in enumerate(zip(weights, expected, strict=True)):
        assert_close(ours, theirs, atol=2e-6 * (done + 1))


def test_the_gradients_global_norm_is_clipped_before_weight_decay():
    steps = gradients(6)
    steps[2] = jax.tree.map(lambda g: g * 1e-3, steps[2])  # small enough to stay
    weights, _ = run(
        config(optimizer__clip_norm=0.5, optimizer__weight_decay=0.1), EVEN, steps
    )  # fmt: skip
    clipped = []
    for gradient in steps:
        norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(gradient)))
        clipped.append(jax.tree.map(lambda g: g * min(1, 0.5 / norm), gradient))  # noqa: B023
    assert_close(weights[-1], numpy_run(sgd, clipped, EVEN[-1], decay=0.1)[-1])


@pytest.mark.parametrize('name', ['sgd', 'adam'])
def test_accumulated_batches_make_one_update_with_their_mean(name):
    batches = gradients(12)
    settings = config(optimizer__name=name, optimizer__accumulate=3, optimizer__clip_norm=1.0)
    weights, _ = run(settings, EVEN, batches)
    means = [
        jax.tree.map(lambda *g: np.mean(g, axis=0), *batches[i : i + 3]) for i in range(0, 12, 3)
    ]
    settings.optimizer.accumulate = 1
    # Four updates in all: the schedule of a plan of four batches.
    expected, _ = run(config(
        (1, 2, 4), optimizer__name=name, optimizer__clip_norm=1.0
    ), (1, 2, 4), means)  # fmt: skip
    for i, ours in enumerate(weights):
        assert_close(ours, expected[i // 3 - 1 + (i % 3 == 2)] if i >= 2 else START)


@pytest.mark.parametrize('name', ['sgd', 'adam', 'adamw'])
@pytest.mark.parametrize('accumulate', [1, 2])
def test_a_frozen_encoder_stands_still_for_its_epochs_and_then_moves(name, accumulate):
    changes = {'optimizer__name': name, 'optimizer__accumulate': accumulate}
    changes |= {'optimizer__weight_decay': 0.1}
    batches = gradients(UNEVEN[-1])
    frozen, _ = run(config(UNEVEN, optimizer__freeze_encoder_epochs=2, **changes), UNEVEN, batches)
    free, _ = run(config(UNEVEN, **changes), UNEVEN, batches)
    last_frozen = 10 + accumulate - 1  # batches: two epochs, then the update under way
    for done, weights in enumerate(frozen, start=1):
        still = (weights['encoder']['w'] == START['encoder']['w']).all()
        assert still == (done <= last_frozen), done
        assert (weights['head'] == free[done - 1]['head']).all()  # the rest as without freezing
    assert not (frozen[accumulate - 1]['head'] == START['head']).any()


def test_an_encoder_frozen_for_longer_than_the_run_never_moves():
    weights, _ = run(config(optimizer__freeze_encoder_epochs=99), EVEN, gradients(12))
    assert (weights[-1]['encoder']['w'] == START['encoder']['w']).all()


@pytest.mark.parametrize(
    ('changes', 'members'),  # members: batches done
    [
        ({'averaging__start': 0}, [3, 10, 12, 17]),
        ({'averaging__start': 2}, [12, 17]),
        ({'averaging__start': 3}, [17]),
        ({'averaging__start': -9}, [3, 10, 12, 17]),
        ({'averaging__start': 1, 'averaging__every_steps': 4}, [7, 11, 15]),
        ({'averaging__start': 0, 'averaging__every_steps': 1}, list(range(1, 18))),
        ({'averaging__start': 0, 'optimizer__accumulate': 2}, [2, 10, 12, 16]),
        ({'averaging__start': 1, 'optimizer__accumulate': 2}, [10, 12, 16]),
        ({'averaging__start': 1, 'averaging__every_steps': 3, 'optimizer__accumulate': 2}, [8, 14]),
        ({'averaging__start': 2, 'optimizer__freeze_encoder_epochs': 3}, [12, 17]),
    ],
)
def test_swa_averages_the_weights_at_its_epoch_ends_or_steps(changes, members):
    weights, state = run(config(UNEVEN, averaging__kind='mean', **changes), UNEVEN, gradients(17))
    average = averaging.find_average(state)
    assert average.members == len(members)
    expected = jax.tree.map(lambda *w: np.mean(w, axis=0), *[weights[m - 1] for m in members])
    assert_close(average.average, expected)
    apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), expected, weights[-1])
    assert len(members) == 1 or max(jax.tree.leaves(apart)) > 1e-3  # or the test shows nothing


def test_ema_starts_after_its_epochs():
    settings = config(UNEVEN, averaging__kind='ema', averaging__start=2, averaging__decay=0.7)
    weights, state = run(settings, UNEVEN, gradients(17))
    expected = weights[9]
    for new in weights[10:]:
        expected = jax.tree.map(lambda m, w: 0.7 * m + 0.3 * w, expected, new)
    average = averaging.find_average(state)
    assert_close(average.average, expected)
    assert average.members == 7


@pytest.mark.parametrize('kind', ['mean', 'ema'])
def test_averaging_changes_nothing_about_training(kind):
    batches = gradients(12)
    with_average, _ = run(config(averaging__kind=kind, averaging__start=1), EVEN, batches)
    without, state = run(config(), EVEN, batches)
    assert_close(with_average[-1], without[-1], atol=0)
    assert averaging.find_average(state) is None
