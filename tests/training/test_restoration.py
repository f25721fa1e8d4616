"""Learning without labels: its steps, its run, and what may be done with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pneumojax import config as config_lib
from pneumojax.augment import hide
from pneumojax.data.datasets import example as example_lib
from pneumojax.data.datasets import siim
from pneumojax.errors import UsageError
from pneumojax.evaluation import evaluate
from pneumojax.experiments import stages
from pneumojax.models import build
from pneumojax.models.unet import CLASSIFICATION_HEAD
from pneumojax.prediction import load
from pneumojax.runs import layout
from pneumojax.runs.run import Run
from pneumojax.runtimes import export
from pneumojax.training import initialization, steps
from pneumojax.training.optimizer import make_optimizer
from pneumojax.training.state import create_state
from tests.conftest import tiny_config
from tests.data.datasets.folder_images import write
from tests.same_bits import assert_same_bits
from tests.training import small_steps

RESTORE = {'loss__bce': 0.0, 'loss__dice': 0.0, 'loss__restoration': 2.0, 'augment__hide': 0.4}


def small_config(**changes):
    return small_steps.make_config(**RESTORE, **changes)


def restore(config):
    """Turns a configuration into one of a run without labels."""
    config.name = 'pretrain'
    config.loss.bce = config.loss.dice = 0.0
    config.loss.restoration, config.augment.hide = 1.0, 0.5
    return config


@pytest.fixture(scope='module')
def pretrained(phantoms, cache, tmp_path_factory):
    """A run on the same phantoms, without their masks."""
    config = restore(tiny_config(phantoms, cache))
    run = Run(tmp_path_factory.mktemp('pretrained') / 'run')
    config_lib.check(config)
    stages.train(config, run.path)
    return config, run


# --- steps --------------------------------------------------------------------------------------


def numpy_restoration(predicted, image, hidden):
    image = image / 255.0
    wanted = (image - image.mean()) / (image.std() + 1e-3)
    return np.abs(predicted - wanted)[hidden].mean()


def shown_of(rows, key):
    """uint8 images -> what is hidden, and the logits' input times 255, as `network` takes it."""
    images = rows['image'][..., None] / np.float32(255)
    examples = jnp.asarray(rows['example'])
    shown, hidden = hide.hide_batch(key, examples, jnp.asarray(images), small_config().augment)
    return np.asarray(shown)[..., 0] * 255, np.asarray(hidden)[..., 0]


def test_the_training_loss_is_that_of_hidden_pixels_seen_with_them_hidden():
    config, rows = small_config(), small_steps.batch()
    optimizer = make_optimizer(config, small_steps.PLAN)
    step = jax.jit(steps.make_train_step(config, optimizer))
    state = create_state(small_steps.initial_variables(), optimizer, seed=3)
    _, values = step(state, rows)
    shown, hidden = shown_of(rows, jax.random.fold_in(jax.random.key(3), 0))
    logits, _ = small_steps.network(train=True)(state.batch_stats, shown)
    each = map(numpy_restoration, np.asarray(logits)[..., 0], rows['image'], hidden)
    expected = np.mean(list(each))
    assert values['restoration'] == pytest.approx(expected, rel=1e-4)
    assert values['loss'] == pytest.approx(2 * expected, rel=1e-4)
    _, blind = step(state, rows | {'mask': 1 - rows['mask']})
    assert_same_bits(jax.device_get(values), jax.device_get(blind))


def test_validation_hides_the_same_pixels_whatever_the_seed_and_the_batch():
    rows, variables = small_steps.evaluation_batch(), small_steps.initial_variables()
    sums = jax.jit(steps.make_eval_step(small_config()))(variables, rows)
    shown, hidden = shown_of(rows, jax.random.key(0))
    logits, _ = small_steps.network(train=False)(variables['batch_stats'], shown)
    each = np.array([*map(numpy_restoration, np.asarray(logits)[..., 0], rows['image'], hidden)])
    assert set(sums) == {'images', 'loss'}
    assert sums['images'] == rows['valid'].sum()
    assert sums['loss'] == pytest.approx(2 * each[rows['valid']].sum(), rel=1e-4)


# --- a run and what starts from it ---------------------------------------------------------------


def test_a_run_logs_the_restoration_loss_and_no_dice(pretrained):
    _, run = pretrained
    rows = run.metrics()
    trained = [row for row in rows if row['split'] == 'train']
    held_out = [row for row in rows if row['split'] == 'validation']
    assert len(held_out) == 3
    assert all('dice' not in row and np.isfinite(row['loss']) for row in held_out)
    assert {'restoration', 'loss'} <= trained[0].keys()
    assert 'bce' not in trained[0]
    assert held_out[-1]['loss'] < held_out[0]['loss']


def test_segmentation_starts_from_its_encoder_and_decoder_with_a_new_head(
    pretrained, config, tmp_path
):
    _, earlier = pretrained
    held_out = earlier.read_json('split.json')['validation']
    config.init_from = str(earlier.path)
    start = initialization.initial_variables(config, held_out)
    step, shapes = earlier.checkpoints.latest_step(), build.variable_shapes(config)
    average = earlier.checkpoints.load_variables(step, shapes, averaged=True)
    fresh = jax.device_get(build.initial_variables(config))
    for part in ('encoder', 'decoder'):
        assert_same_bits(start['params'][part], average['params'][part])
    assert_same_bits(start['params']['head'], fresh['params']['head'])
    assert_same_bits(start['batch_stats'], average['batch_stats'])

    config.model.classification_head, config.loss.classification = 'gate', 0.1
    headed = initialization.initial_variables(config, held_out)
    fresh = jax.device_get(build.initial_variables(config))
    heads = {name: fresh['params'][name] for name in ('head', CLASSIFICATION_HEAD)}
    assert_same_bits(headed['params'], average['params'] | heads)


def test_segmentation_is_trained_from_it(pretrained, config, tmp_path):
    _, earlier = pretrained
    split = earlier.read_json('split.json')
    # The same images are held out, as its own fold is drawn without regard to labels.
    table = tmp_path / 'table.csv'
    rows = [f'{name},{side}' for side in ('train', 'validation') for name in split[side]]
    table.write_text('\n'.join(['ImageId,split', *rows]))
    masks = tmp_path / 'masks'
    for example in siim.find(config.data.root).examples:
        write(masks / f'{example.image_id}.png', example_lib.load(example)[1] * np.uint8(255))
    config.data.masks, config.data.table = str(masks), str(table)
    config.init_from, run = str(earlier.path), Run(tmp_path / 'run')
    stages.train(config, run.path)
    assert run.read_json('split.json') == split
    assert all('dice' in row for row in run.metrics() if row['split'] == 'validation')
    evaluate.evaluate(config, run)
    assert 0 <= run.read_json('evaluation.json')['auc']['value'] <= 1


def test_more_of_it_starts_with_its_head_too(pretrained):
    config, earlier = pretrained
    config = config.copy_and_resolve_references()
    config.init_from = str(earlier.path)
    step, shapes = earlier.checkpoints.latest_step(), build.variable_shapes(config)
    average = earlier.checkpoints.load_variables(step, shapes, averaged=True)
    assert_same_bits(initialization.initial_variables(config, []), average)


def test_images_that_are_held_out_later_may_not_be_learned_from(pretrained, config):
    _, earlier = pretrained
    seen = earlier.read_json('split.json')['train']
    config.init_from = str(earlier.path)
    with pytest.raises(UsageError, match=r'holds out .* train it on a folder without these'):
        initialization.initial_variables(config, seen[:1])


def test_it_can_not_be_evaluated_predicted_with_exported_or_pretrained_from(
    pretrained, config, tmp_path
):
    earlier, run = pretrained
    mended = f'learns without labels .*--config.init_from={run.path}'
    out = str(tmp_path / 'out')
    with pytest.raises(UsageError, match=mended):
        evaluate.evaluate(earlier, run)
    with pytest.raises(UsageError, match=mended):
        load.load(run.path)
    for form in export.FORMATS:
        with pytest.raises(UsageError, match=mended):
            export.export(earlier, run, out, form)
    config.model.pretrained = str(run.path)
    with pytest.raises(UsageError, match=mended):
        initialization.initial_variables(config, [])
    assert not list(tmp_path.iterdir())


def test_it_is_a_run_of_its_own(config, tmp_path):
    restore(config)
    config.data.fold = -1
    with pytest.raises(UsageError, match=r'loss.restoration is 1.0: expected 0 with data'):
        config_lib.check(config)
    config.data.fold = 0
    config.stages = {'first': {'num_epochs': 2}, 'second': {'num_epochs': 3}}
    with pytest.raises(UsageError, match=r'config.stages.first: learning without labels'):
        list(layout.children(config, tmp_path))


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'loss.bce': 1.0}, 'config.loss is'),
        ({'loss.restoration': 0.0, 'augment.hide': 0.0}, 'config.loss is'),
        ({'augment.hide': 0.0}, 'config.augment.hide is 0.0: expected a share above 0'),
        ({'loss.restoration': 0.0, 'loss.bce': 1.0}, 'config.augment.hide is 0.5'),
        ({'augment.hide_blocks': 33}, 'config.augment.hide_blocks is 33'),
        ({'model.classification_head': 'gate', 'loss.classification': 1.0}, 'classification'),
    ],
)
def test_values_that_do_not_go_together_are_refused(config, changes, words):
    restore(config)
    config_lib.check(config)
    config.update_from_flattened_dict(changes)
    with pytest.raises(UsageError, match=words):
        config_lib.check(config)
