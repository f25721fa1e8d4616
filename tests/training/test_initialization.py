"""A stage starts from all of an earlier one, or says why it does not."""

import jax
import pytest

from pneumojax.errors import UsageError
from pneumojax.models import build
from pneumojax.runs.run import Run
from pneumojax.training import initialization, loop
from tests.same_bits import assert_same_bits


def test_stage_2_starts_from_all_of_stage_1(trained, config):
    _, stage1 = trained
    config.name, config.image_size, config.init_from = 'stage2', 48, str(stage1.path)
    start = initialization.initial_variables(config, held_out=[])
    shapes = build.variable_shapes(config)
    average = stage1.checkpoints.load_variables(
        stage1.checkpoints.latest_step(), shapes, averaged=True
    )
    assert_same_bits(start, average)
    config.init_weights = 'last'
    last = stage1.checkpoints.load_variables(
        stage1.checkpoints.latest_step(), shapes, averaged=False
    )
    assert_same_bits(initialization.initial_variables(config, held_out=[]), last)


def test_a_classification_head_is_in_both_stages_or_in_none(trained, config, tmp_path):
    _, first = trained
    config.init_from = str(first.path)
    config.model.classification_head, config.loss.classification = 'gate', 0.1
    with pytest.raises(UsageError, match='no classification head, which'):
        initialization.initial_variables(config, [])
    headed = Run(tmp_path / 'headed')
    headed.start(config)
    fresh = jax.device_get(build.initial_variables(config))
    with headed.checkpoints.writer(keep=1) as checkpointer:
        checkpointer.save_checkpointables(0, fresh)
    config.init_from = str(headed.path)
    assert_same_bits(initialization.initial_variables(config, []), fresh)
    config.model.classification_head, config.loss.classification = 'none', 0.0
    with pytest.raises(UsageError, match='has a classification head; give this stage the same one'):
        initialization.initial_variables(config, [])


def test_an_unfinished_stage_is_said_to_be_one(config, tmp_path, caplog, monkeypatch):
    """Averaged weights are asked for, but there are none before the last epoch."""
    run = Run(tmp_path / 'run')

    def stop(self, state, stop_if_asked):
        raise AssertionError('not reached')

    monkeypatch.setattr(loop.Trainer, '_averaged', stop)
    with pytest.raises(AssertionError, match='not reached'):
        loop.train(config, run)
    config.init_from = str(run.path)
    monkeypatch.setattr(initialization.log, 'propagate', True)
    initialization.initial_variables(config, held_out=[])
    assert f'after epoch 2 of {config.num_epochs}' in caplog.text
    assert 'no averaged weights' in caplog.text


def test_another_network_is_refused_with_both_key_lists(trained, config):
    _, stage1 = trained
    config.init_from = str(stage1.path)
    config.model.stage_sizes = (1, 2, 1, 1)
    with pytest.raises(UsageError) as e:
        initialization.initial_variables(config, held_out=[])
    assert str(stage1.path) in str(e.value)
    assert f'/{stage1.checkpoints.latest_step()}' in str(e.value)
    assert 'only in the model: encoder/layer2_1/bn1/' in str(e.value)
    config.model.stage_sizes, config.model.width = (1, 1, 1, 1), 8
    with pytest.raises(
        UsageError, match=r'block0/bn1/bias \(\(16,\), .float32.\) instead of \(\(32,\)'
    ):
        initialization.initial_variables(config, held_out=[])


def test_without_stage_1_it_says_the_command_that_makes_one(config, tmp_path):
    config.init_from = str(tmp_path / 'stage1')
    config.data.root = str(tmp_path / 'nowhere')  # said before any image is looked for
    with pytest.raises(UsageError, match=r'--config=configs/stage1\.py'):
        loop.train(config, Run(tmp_path / 'stage2'))
    assert not list(tmp_path.iterdir())


def test_a_stage_that_saw_the_held_out_images_is_refused(trained, config):
    _, stage1 = trained
    split = stage1.read_json('split.json')
    seen, unseen = split['train'][0], split['validation']
    for group, key in ((config, 'init_from'), (config.model, 'pretrained')):
        group[key] = str(stage1.path)
        with pytest.raises(
            UsageError, match=rf'config\..*{key}: .* was trained on 1 of the images'
        ):
            initialization.initial_variables(config, held_out=[*unseen, seen])
        initialization.initial_variables(config, held_out=unseen)
        group[key] = ''
