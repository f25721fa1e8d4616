"""A stage from its first step to its last checkpoint: resumed, restored, refused."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from pneumojax.data import dataset as dataset_lib
from pneumojax.data.datasets import example as example_lib
from pneumojax.errors import UsageError
from pneumojax.experiments import stages
from pneumojax.models import build, download
from pneumojax.runs.run import FILES, Run
from pneumojax.system.devices import Devices
from pneumojax.training import averaging, initialization, loop, optimizer, steps
from tests.same_bits import assert_same_bits

REPOSITORY = pathlib.Path(__file__).parents[2]


def final_items(run, config):
    """All items of the last checkpoint, strictly loaded."""
    shapes = build.variable_shapes(config)
    step = run.checkpoints.latest_step()
    plan = loop.make_plan(config, dataset_lib.load(config))
    state = initialization.resume(run, config, optimizer.make_optimizer(config, plan))
    average = run.checkpoints.load_variables(step, shapes, averaged=True)
    return step, {'last': state.variables, 'opt_state': state.opt_state, 'average': average}


def test_it_writes_what_the_contract_names(trained):
    config, run = trained
    step, _ = final_items(run, config)
    plan = loop.make_plan(config, dataset_lib.load(config))
    assert step == plan.total_steps
    assert run.checkpoints.items(step) >= {
        'params', 'batch_stats', 'opt_state', 'average_params', 'average_batch_stats',
    }  # fmt: skip
    rows = run.metrics()
    assert [r['step'] for r in rows if r['split'] == 'train'] == list(range(1, step + 1))
    assert [r['step'] for r in rows if r['split'] == 'validation'] == plan.epoch_ends.tolist()
    assert {
        'loss',
        'bce',
        'dice_loss',
        'grad_norm',
        'update_norm',
        'param_norm',
        'learning_rate',
    } <= rows[0].keys()
    assert list((run / 'tensorboard').iterdir())
    split = run.read_json('split.json')
    assert not set(split['train']) & set(split['validation'])
    assert len(split['train']) + len(split['validation']) == 40


def test_the_average_is_the_mean_of_the_last_epochs_weights(config, tmp_path):
    config.checkpoint.keep = 10
    run = Run(tmp_path / 'run')
    loop.train(config, run)
    shapes = build.variable_shapes(config)
    plan = loop.make_plan(config, dataset_lib.load(config))
    members = [
        run.checkpoints.load_variables(int(step), shapes, averaged=False)['params']
        for step in plan.epoch_ends[config.averaging.start :]
    ]
    assert len(members) == 2
    mean = jax.tree.map(lambda *w: np.mean(np.stack(w), axis=0), *members)
    averaged = run.checkpoints.load_variables(plan.total_steps, shapes, averaged=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), averaged['params'], mean)

    # Its statistics are those of its own activations, not the last weights'.
    dataset = dataset_lib.load(config)
    statistics = jax.jit(steps.make_batch_stats_step(config))
    rows = [dataset.records[i] for i in dataset.train[:8]]
    batch = {'image': np.stack([r[0] for r in rows]), 'mask': np.stack([r[1] for r in rows])}
    one = statistics(averaged['params'], averaged['batch_stats'], batch)
    own = averaged['batch_stats']['encoder']['bn1']['mean']
    last = run.checkpoints.load_variables(plan.total_steps, shapes, averaged=False)['batch_stats']
    expected = one['encoder']['bn1']['mean']
    assert np.abs(own - expected).max() < np.abs(last['encoder']['bn1']['mean'] - expected).max()

    # Unless it is told to borrow them: same training, same average, the last weights' statistics.
    config.averaging.bn_examples = -1
    borrowing = Run(tmp_path / 'borrowing')
    loop.train(config, borrowing)
    borrowed = borrowing.checkpoints.load_variables(plan.total_steps, shapes, averaged=True)
    assert_same_bits(borrowed, {'params': averaged['params'], 'batch_stats': last})


def test_a_complete_run_is_left_alone(trained):
    config, run = trained
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob('*') if p.is_file()}
    loop.train(config, run)
    assert before == {p: p.stat().st_mtime_ns for p in run.path.rglob('*') if p.is_file()}


KILLED = """
import os, signal, sys
from pneumojax import config as config_lib
from pneumojax.runs.run import Run
from pneumojax.training import loop

def kill(trainer, step, *rest, **options):
    if step == 5:
        trainer.saver.wait()  # until the checkpoint of step 3 is on the disk
        os.kill(os.getpid(), signal.SIGKILL)

loop.Trainer._stop_if_asked = kill
loop.train(config_lib.from_json(open(sys.argv[1]).read()), Run(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(trained, tmp_path):
    """kill -9 two steps after the first checkpoint; the same command continues."""
    config, whole = trained
    run = Run(tmp_path / 'killed')
    done = subprocess.run(
        [sys.executable, '-c', KILLED, str(whole / 'config.json'), str(run.path)],
        env=os.environ | {'PYTHONPATH': str(REPOSITORY)}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert run.checkpoints.latest_step() == 3
    loop.train(config, run)
    step, items = final_items(run, config)
    expected_step, expected = final_items(whole, config)
    assert step == expected_step
    assert_same_bits(items, expected)
    assert [r['step'] for r in run.metrics() if r['split'] == 'train'] == list(range(1, step + 1))


def test_an_interrupted_run_resumes_to_the_same_bits(trained, tmp_path, monkeypatch):
    """Interrupted in the middle of an epoch, with steps past the last checkpoint to forget."""
    config, whole = trained
    run = Run(tmp_path / 'interrupted')
    report = loop.Trainer._report_step

    def interrupt(self, step, metrics):
        report(self, step, metrics)
        if step == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Trainer, '_report_step', interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, run)
    monkeypatch.undo()
    assert 0 < run.checkpoints.latest_step() < 6
    loop.train(config, run)
    assert_same_bits(final_items(run, config), final_items(whole, config))
    drop = ('seconds',)
    lines = [[{k: v for k, v in row.items() if k not in drop} for row in r.metrics()]
             for r in (run, whole)]  # fmt: skip
    assert lines[0] == lines[1]


@pytest.mark.slow
def test_windows_and_frozen_statistics_from_the_first_stage_to_the_average(
    trained, config, tmp_path
):
    _, first = trained
    config.init_from, config.num_epochs = str(first.path), 2
    config.model.frozen_batch_norm, config.augment.window = True, 16
    run = Run(tmp_path / 'second')
    loop.train(config, run)
    shapes = build.variable_shapes(config)
    before = first.checkpoints.load_variables(
        first.checkpoints.latest_step(), shapes, averaged=True
    )
    for averaged in (False, True):
        after = run.checkpoints.load_variables(
            run.checkpoints.latest_step(), shapes, averaged=averaged
        )
        assert_same_bits(after['batch_stats'], before['batch_stats'])
        moved = jax.tree.map(lambda a, b: (a != b).any(), after['params'], before['params'])
        assert all(jax.tree.leaves(moved))


def test_another_split_is_refused(trained, config, tmp_path):
    _, run = trained
    changed = json.loads((run / 'split.json').read_text())
    other = Run(tmp_path / 'other')
    other.start(config)
    changed['validation'].append(changed['train'].pop())
    other.write_json('split.json', changed)
    with pytest.raises(UsageError, match=r'split\.json'):
        loop.train(config, other)


def test_weights_that_cannot_be_had_claim_no_directory(config, tmp_path, monkeypatch):
    """The way out that the message names is open: the same directory, another `pretrained`."""
    monkeypatch.setenv('PNEUMOJAX_CACHE', str(tmp_path / 'cache'))
    offline = download.Source('http://127.0.0.1:9/weights', 'x.safetensors', '0' * 64)
    monkeypatch.setattr(download.resolve, '__defaults__', ([offline],))
    run, root = Run(tmp_path / 'run'), config.data.root
    empty = tmp_path / 'without images'
    empty.mkdir()
    config.model.pretrained, config.data.root = 'imagenet', str(empty)
    both = config.copy_and_resolve_references()
    both.stages = {'one': {'seed': 1}, 'two': {'seed': 2}}
    for train in (lambda: loop.train(config, run), lambda: stages.train(both, run.path)):
        with pytest.raises(
            UsageError, match=r'could not be downloaded .*config\.model\.pretrained'
        ):
            train()
        assert not run.path.exists()
    run.start(config)  # as one that was claimed before weights were looked for
    config.model.pretrained, config.data.root = '', root
    config.num_epochs, config.averaging.start = 1, 0
    monkeypatch.setattr(loop.Trainer, 'train', lambda *_, **__: None)
    loop.train(config, run)
    assert run.config().model.pretrained == ''


def test_a_stage_that_saw_the_held_out_images_claims_no_directory(trained, config, tmp_path):
    _, first = trained
    config.init_from, config.data.split_seed = str(first.path), 9
    with pytest.raises(UsageError, match=r'config\.init_from: .* was trained on'):
        loop.train(config, Run(tmp_path / 'second'))
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_stops_with_the_images(config, tmp_path):
    config.optimizer.name = 'sgd'
    config.optimizer.learning_rate = 1e30
    run = Run(tmp_path / 'diverges')
    with pytest.raises(FloatingPointError, match=r'not finite at step \d+.*learning rate') as e:
        loop.train(config, run)
    ids = {example.image_id for example in dataset_lib.load(config).examples}
    named = str(e.value).split('images ')[1].split(';')[0].split(', ')
    assert len(named) == config.batch_size
    assert set(named) <= ids


def test_a_finished_run_goes_on_when_its_epochs_are_raised(
    trained, tmp_path, messages, monkeypatch
):
    """By the schedule of all epochs, to a new average; an interruption changes nothing."""
    whole_config, whole = trained
    config = whole_config.copy_and_resolve_references()
    config.num_epochs, config.checkpoint.keep = whole_config.num_epochs + 2, 10
    runs = [Run(tmp_path / name) for name in ('on', 'interrupted')]
    for run in runs:
        shutil.copytree(whole.path, run.path)
    done = whole.checkpoints.latest_step()
    loop.train(config, runs[0])
    assert any('it goes back up' in message for message in messages)

    report = loop.Trainer._report_step

    def interrupt(self, step, metrics):
        report(self, step, metrics)
        if step == done + 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Trainer, '_report_step', interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, runs[1])
    monkeypatch.undo()
    loop.train(config, runs[1])
    step, items = final_items(runs[0], config)
    assert_same_bits(final_items(runs[1], config), (step, items))

    plan = loop.make_plan(config, dataset_lib.load(config))
    assert step == plan.total_steps
    rows = [row for row in runs[0].metrics() if row['split'] == 'train']
    assert [row['step'] for row in rows] == list(range(1, step + 1))
    rate = optimizer.learning_rate(config, plan)
    for row in rows[done:]:
        assert row['learning_rate'] == pytest.approx(float(rate(row['step'] - 1)))
    assert rows[done]['learning_rate'] > 10 * rows[done - 1]['learning_rate']
    shapes = build.variable_shapes(config)
    members = [
        runs[0].checkpoints.load_variables(int(end), shapes, averaged=False)['params']
        for end in plan.epoch_ends[whole_config.num_epochs :]
    ]
    mean = jax.tree.map(lambda *w: np.mean(np.stack(w), axis=0), *members)
    average = items['average']['params']
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), average, mean)


def test_freezing_and_accumulation_by_config(config, tmp_path):
    """The encoder of a run whose every epoch is frozen keeps its initial weights, bit for bit."""
    config.optimizer.freeze_encoder_epochs = config.num_epochs
    config.optimizer.accumulate = 2
    config.optimizer.clip_norm = 0.1
    config.averaging.kind = 'ema'
    run = Run(tmp_path / 'frozen')
    loop.train(config, run)
    shapes = build.variable_shapes(config)
    final = run.checkpoints.load_variables(run.checkpoints.latest_step(), shapes, averaged=False)
    fresh = jax.device_get(build.initial_variables(config))
    assert_same_bits(final['params']['encoder'], fresh['params']['encoder'])
    changed = jax.tree.map(
        lambda a, b: bool((a != b).any()),
        final['params']['decoder'], fresh['params']['decoder'],
    )  # fmt: skip
    assert all(v for k, v in jax.tree.leaves_with_path(changed) if 'kernel' in str(k))
    plan = loop.make_plan(config, dataset_lib.load(config))
    state = initialization.resume(run, config, optimizer.make_optimizer(config, plan))
    assert averaging.find_average(state.opt_state).count == plan.total_steps // 2


def test_stages_run_one_after_another_and_end_with_a_table(config, tmp_path, capsys):
    config.evaluation.compare = True
    config.stages = {
        'stage1': {'image_size': 32, 'num_epochs': 1, 'averaging': {'start': 0}},
        'stage2': {'image_size': 48},
    }
    stages.train(config, tmp_path / 'both', profile=2)
    table, log = capsys.readouterr()
    assert not re.search('[\r\x1b]', log)  # no terminal: plain lines
    epochs, size = config.num_epochs, config.stages.stage2.image_size
    assert re.search(rf'^stage2 {size} px: (\d+) of \1 steps .*epoch {epochs}', log, re.MULTILINE)
    assert '\ncompiling the training step ...\n' in log
    for words in ('stage1, 32 px', 'stage2, 48 px', '+ SWA', '+ TTA', 'all empty', 'positives'):
        assert words in table
    high = Run(tmp_path / 'both' / 'stage2')
    assert high.config().init_from == str(tmp_path / 'both' / 'stage1')
    for name in ('evaluation.json', 'per_image.csv', 'thresholds.json'):
        assert (high / name).is_file()
    for name in ('curves.png', 'contact_sheet.png'):
        assert (high / name).read_bytes().startswith(b'\x89PNG')
    written = {p.name + '/' * p.is_dir() for p in high.path.iterdir()}
    # No group of so few images is large enough for a picture.
    on_occasion = {'.lock', 'damaged/', 'exported/', 'subgroups.png'}
    assert written == FILES.keys() - on_occasion
    report = high.read_json('evaluation.json')
    keys = {'mean_dice', 'all_empty_dice', 'positive_dice', 'sensitivity', 'specificity', 'auc'}
    for key in keys:
        assert set(report[key]) == {'value', 'low', 'high'}
    split = high.read_json('split.json')
    assert report['n'] == len(split['validation'])
    rows = (high / 'per_image.csv').read_text().splitlines()
    assert rows[0].startswith('ImageId,dice,true_px,predicted_px,probability,score,')
    assert [row.split(',')[0] for row in rows[1:]] == split['validation']
    mean = np.mean([float(row.split(',')[1]) for row in rows[1:]])
    assert report['mean_dice']['value'] == pytest.approx(mean, abs=1e-6)


def test_images_on_the_device_give_the_same_bits_and_steps_wait_for_nothing(
    trained, tmp_path, monkeypatch
):
    """Inside an epoch the host never waits: transfers are explicit, metrics two steps old."""
    streamed_config, streamed = trained
    config, events = streamed_config.copy_and_resolve_references(), []
    config.data.on_device = True
    compiled, report = Devices.compile, loop.Trainer._report_step

    def guarded_compile(self, function, name, donate=()):
        call = compiled(self, function, name, donate)

        def guarded(*args):
            events.append(name)
            with jax.transfer_guard('disallow'):
                return call(*args)

        return guarded

    def noted_report(self, step, metrics):
        events.append(step)
        report(self, step, metrics)

    monkeypatch.setattr(Devices, 'compile', guarded_compile)
    monkeypatch.setattr(loop.Trainer, '_report_step', noted_report)
    run = Run(tmp_path / 'run')
    loop.train(config, run)
    step, items = final_items(run, config)
    assert_same_bits((step, items), final_items(streamed, streamed_config))
    ends = loop.make_plan(config, dataset_lib.load(config)).epoch_ends
    for position, event in enumerate(events):
        if isinstance(event, int):
            end_of_epoch = ends[np.searchsorted(ends, event)]
            done = events[:position].count('the training step')
            assert done >= min(event + 2, end_of_epoch)
    assert sum(isinstance(event, int) for event in events) == step


def test_prepare_decodes_once_for_all_stages(config, tmp_path, monkeypatch):
    loads, read = [], example_lib.read
    monkeypatch.setattr(example_lib, 'read', lambda e: (loads.append(e.image_id), read(e))[1])
    config.data.cache = str(tmp_path / 'cache')
    config.stages = {'one': {'image_size': 16}, 'two': {'image_size': 24}}
    stages.prepare(config, tmp_path / 'run')
    assert len(loads) == len(set(loads)) == 40
    assert sorted(p.name[:4] for p in (tmp_path / 'cache').iterdir()) == ['16px', '24px']
