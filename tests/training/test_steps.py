"""The pure functions of training, on a network of width 4 and images of 32 pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pneumojax.models import build
from pneumojax.training import averaging, steps
from pneumojax.training.optimizer import make_optimizer
from pneumojax.training.state import create_state
from tests.training.small_steps import (
    BATCH,
    PLAN,
    RATE,
    assert_close,
    batch,
    evaluation_batch,
    initial_variables,
    make_config,
    network,
    numpy_loss,
)

pytestmark = pytest.mark.usefixtures('quick_compilation')


class Stepper:
    """A compiled training step that counts how often it was traced."""

    def __init__(self, config):
        self.optimizer = make_optimizer(config, PLAN)
        self.pure = steps.make_train_step(config, self.optimizer)
        self.traces = 0

        def counted(state, batch):
            self.traces += 1
            return self.pure(state, batch)

        self.step = jax.jit(counted, donate_argnums=0)

    def new_state(self):
        return create_state(initial_variables(), self.optimizer)

    def run(self, batches):
        """All states and metrics, from the initial weights on, as numpy arrays."""
        state, results = self.new_state(), []
        for rows in batches:
            state, values = self.step(state, rows)
            results.append(jax.tree.map(np.array, (state, values)))
        return results


@pytest.fixture(scope='module')
def plain():
    return Stepper(make_config())


@pytest.fixture(scope='module')
def augmented():
    return Stepper(make_config(probability=0.5))


@pytest.mark.slow
def test_the_same_bits_twice_and_one_compilation(augmented):
    batches = [batch(0), batch(1), batch(2)]
    first, second = augmented.run(batches), augmented.run(batches)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert augmented.traces == 1
    assert [int(state.step) for state, _ in first] == [1, 2, 3]
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), first[0][0], first[2][0])
    assert all(jax.tree.leaves(moved.params))


@pytest.mark.slow
def test_the_order_within_a_batch_does_not_matter(augmented):
    rows, order = batch(), np.random.default_rng(3).permutation(BATCH)
    permuted = {name: values[order] for name, values in rows.items()}
    (state, values), *_ = augmented.run([rows])
    (other_state, other_values), *_ = augmented.run([permuted])
    assert_close(other_values, values)
    assert_close(other_state, state)
    # Augmentation goes with the example: with other numbers the same images come out different.
    (_, elsewhere), *_ = augmented.run([rows | {'example': permuted['example']}])
    assert abs(elsewhere['loss'] - values['loss']) > 1e-3


@pytest.mark.slow
def test_jit_equals_no_jit(plain):
    (state, values), *_ = plain.run([batch()])
    # Without momentum and average the first update is the same, in a tenth of the operations.
    optimizer = optax.sgd(RATE)
    step = steps.make_train_step(make_config(), optimizer)
    state_before = create_state(initial_variables(), optimizer)
    unjitted, unjitted_values = step(state_before, jax.device_put(batch()))
    assert_close(jax.device_get(unjitted_values), values)
    assert_close(jax.device_get(unjitted.variables), state.variables)


@pytest.mark.slow
def test_the_states_buffers_are_donated(plain):
    state, rows = plain.new_state(), jax.device_put(batch())
    plain.step(state, rows)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(rows))


@pytest.mark.slow
def test_metrics_are_those_of_the_weights_before_the_update(plain):
    (state, values), *_ = plain.run([batch()])
    logits, _ = network(train=True)(initial_variables()['batch_stats'], batch()['image'])
    assert values['loss'] == pytest.approx(numpy_loss(logits, batch()['mask']), rel=1e-5)
    assert values['loss'] == pytest.approx(values['bce'] + values['dice_loss'], rel=1e-6)
    # The first update of SGD is the gradient times the rate.
    before = initial_variables()['params']
    updates = jax.tree.map(lambda a, b: a.astype(float) - b, state.params, before)
    assert values['grad_norm'] == pytest.approx(norm(updates) / RATE, rel=1e-4)


def norm(tree):
    return np.sqrt(sum(np.sum(np.square(leaf, dtype=float)) for leaf in jax.tree.leaves(tree)))


@pytest.mark.slow
def test_norms_are_of_what_was_added_to_the_weights_and_of_the_weights_then(plain):
    """From the second step on momentum makes the update another than gradient times rate."""
    states = [initial_variables()['params']]
    for state, values in plain.run([batch(0), batch(1), batch(2)]):
        added = jax.tree.map(lambda a, b: a.astype(float) - b, state.params, states[-1])
        assert values['update_norm'] == pytest.approx(norm(added), rel=1e-4)
        assert values['param_norm'] == pytest.approx(norm(state.params), rel=1e-6)
        states.append(state.params)
    assert values['update_norm'] > 1.2 * RATE * values['grad_norm']


@pytest.mark.slow
def test_the_loss_falls_on_one_batch_learned_by_heart(plain):
    results = plain.run([batch()] * 40)
    losses = [float(values['loss']) for _, values in results]
    assert losses[-1] < 0.5 * losses[0]
    assert max(losses[-5:]) < min(losses[:5])


@pytest.mark.slow
def test_swa_in_the_state_is_the_mean_of_the_weights_so_far(plain):
    results = plain.run([batch(seed) for seed in range(5)])
    average = averaging.find_average(results[-1][0].opt_state).average
    trained = [state.params for state, _ in results]
    assert_close(average, jax.tree.map(lambda *w: np.mean(w, axis=0, dtype=float), *trained), 1e-6)


@pytest.mark.slow
def test_batch_statistics_change_in_training_and_not_in_evaluation(plain):
    (state, _), *_ = plain.run([batch()])
    before = initial_variables()['batch_stats']
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.batch_stats, before)
    assert all(jax.tree.leaves(moved))
    # Flax's 0.9 old + 0.1 new: the first step moves them by a tenth of the way.
    exact = network(train=True)(jax.tree.map(np.zeros_like, before), batch()['image'])[1]
    tenth = jax.tree.map(lambda old, new: 0.9 * old + new, before, exact['batch_stats'])
    assert_close(state.batch_stats, tenth)

    _, after = network(train=False)(state.batch_stats, batch()['image'])
    jax.tree.map(np.testing.assert_array_equal, after['batch_stats'], state.batch_stats)


@pytest.mark.slow
def test_frozen_statistics_normalise_and_stay():
    """From statistics that are not the batch's own, so that reading the wrong ones shows."""
    stepper = Stepper(make_config(model__frozen_batch_norm=True, model__pretrained='something'))
    start = initial_variables()
    stats = jax.tree.map(lambda s: s / 4, start['batch_stats'])
    state = create_state({**start, 'batch_stats': stats}, stepper.optimizer)
    state, values = stepper.step(state, batch())
    jax.tree.map(np.testing.assert_array_equal, state.batch_stats, stats)
    logits, _ = network(train=False)(stats, batch()['image'])
    assert values['loss'] == pytest.approx(numpy_loss(logits, batch()['mask']), rel=1e-5)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, start['params'])
    assert all(jax.tree.leaves(moved))


@pytest.mark.slow
def test_frozen_stages_stay_as_they_are_even_under_weight_decay():
    config = make_config(
        model__frozen_stages=3, model__pretrained='something', optimizer__name='adamw',
        optimizer__weight_decay=0.1, averaging__kind='none',
    )  # fmt: skip
    stepper, start = Stepper(config), initial_variables()
    state, _ = stepper.step(create_state(start, stepper.optimizer), batch())
    recalibrate = jax.jit(steps.make_batch_stats_step(config))
    exact = recalibrate(state.params, state.batch_stats, batch())
    for tree, before in (
        (state.params, start['params']), (state.batch_stats, start['batch_stats']),
        (exact, start['batch_stats']),
    ):  # fmt: skip
        for layer, values in tree['encoder'].items():
            same = jax.tree.map(np.array_equal, values, before['encoder'][layer])
            frozen = not layer.startswith(('layer3', 'layer4'))
            assert set(jax.tree.leaves(same)) == {frozen}, layer
        assert not any(
            jax.tree.leaves(jax.tree.map(np.array_equal, tree['decoder'], before['decoder']))
        )


@pytest.mark.slow
def test_the_classification_head_is_trained_and_counts_in_the_prediction():
    config = make_config(
        model__classification_head='gate', loss__classification=0.1, augment__window=16
    )
    stepper, start = Stepper(config), jax.device_get(build.initial_variables(config))
    state = create_state(start, stepper.optimizer)
    state, values = jax.device_get(stepper.step(state, batch()))
    assert values['loss'] == pytest.approx(
        values['bce'] + values['dice_loss'] + 0.1 * values['image'], rel=1e-5
    )
    moved = jax.tree.map(lambda a, b: (a != b).any(), state.params, start['params'])
    assert jax.tree.reduce(lambda a, b: a and b, moved)

    rows = evaluation_batch()
    start = jax.tree.map(np.copy, start)
    start['params']['head']['bias'] += 1e4  # every pixel is positive ...
    eval_step = jax.jit(steps.make_eval_step(config))
    for bias, dice in ((1e4, None), (-1e4, 1.0)):  # ... unless the whole image is not
        start['params']['image_head']['bias'] = np.full(1, bias, np.float32)
        sums = eval_step(start, rows)
        if bias > 0:
            masks = rows['mask'][:6].reshape(6, -1)
            expected = (2 * masks.sum(1) / (masks.sum(1) + masks.shape[1])).sum()
            assert sums['dice'] == pytest.approx(expected, rel=1e-5)
        else:
            assert sums['dice'] == dice * (masks.sum(1) == 0).sum()


@pytest.mark.parametrize('accumulate', [1, 2])
@pytest.mark.parametrize(
    ('name', 'swa', 'dtype'),
    [
        ('sgd', 'mean', 'float32'),
        ('adam', 'ema', 'float32'),
        ('adamw', 'none', 'float32'),
        ('sgd', 'mean', 'bfloat16'),
    ],
)
def test_a_step_keeps_the_states_shapes_and_float32(name, swa, dtype, accumulate):
    changes = {'optimizer__name': name, 'averaging__kind': swa, 'optimizer__accumulate': accumulate}
    changes |= {'optimizer__freeze_encoder_epochs': 1, 'optimizer__weight_decay': 1e-4}
    config = make_config(model__dtype=dtype, optimizer__clip_norm=1.0, **changes)
    optimizer = make_optimizer(config, PLAN)
    state = create_state(initial_variables(), optimizer)
    traced = jax.eval_shape(steps.make_train_step(config, optimizer), state, batch())
    # Equal types, weak ones too: otherwise the second step would compile again.
    before, after = (
        jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree) for tree in (state, traced[0])
    )
    assert before == after
    assert {(x.shape, x.dtype) for x in traced[1].values()} == {((), jnp.dtype('float32'))}
    assert traced[0].seed.dtype == jnp.uint32
    dtypes = {x.dtype for x in jax.tree.leaves(traced[0].replace(seed=None))}
    assert dtypes <= {jnp.dtype('float32'), jnp.dtype('int32')}


def built(**changes):
    """The optimizer and the training step of a configuration, as the trainer gets them."""
    config = make_config(**changes)
    optimizer = make_optimizer(config, PLAN)
    return optimizer, steps.make_train_step(config, optimizer)


def test_seeds_and_equal_epochs_share_one_training_step():
    optimizer, step = built()
    same = make_optimizer(make_config(), PLAN._replace(order=PLAN.order + 1))
    assert same is optimizer
    assert built(seed=7) == (optimizer, step)


@pytest.mark.parametrize(
    ('key', 'value'),
    [('model__width', 8), ('augment__flip', 0.25), ('loss__dice', 2.0), ('averaging__start', 1),
     ('optimizer__learning_rate', 0.5), ('num_epochs', 3)],
)  # fmt: skip
def test_another_configuration_has_another_training_step(key, value):
    assert built(**{key: value})[1] is not built()[1]


def test_other_epochs_have_another_optimizer():
    longer = PLAN._replace(epoch_ends=PLAN.epoch_ends + 1)
    assert make_optimizer(make_config(), longer) is not make_optimizer(make_config(), PLAN)


@pytest.mark.slow
def test_augmentation_follows_the_seed_of_the_state(augmented):
    start, losses = initial_variables(), []
    for seed in (0, 0, 1, 2**32):
        state = create_state(start, augmented.optimizer, seed)
        losses.append(float(augmented.step(state, batch())[1]['loss']))
    assert losses[0] == losses[1] == losses[3] != losses[2]
    assert augmented.traces == 1
