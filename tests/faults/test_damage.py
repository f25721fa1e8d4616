"""What breaks beside the program: files, disks, a second process. Named, and nothing lost."""

import json
import logging
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from pneumojax.data import dataset as dataset_lib
from pneumojax.data.cache import records
from pneumojax.errors import UsageError
from pneumojax.runs import checkpoints
from pneumojax.runs.run import LOCK, Run
from pneumojax.training import initialization, loop
from tests.training.test_loop import assert_same_bits, final_items

REPOSITORY = pathlib.Path(__file__).parents[2]


@pytest.fixture
def copy(trained, tmp_path):
    shutil.copytree(trained[1].path, tmp_path / 'run')
    return Run(tmp_path / 'run')


# --- checkpoints -------------------------------------------------------------------------------


def largest(folder):
    return max((p for p in folder.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


DAMAGE = {
    'a bit of the arrays': lambda folder: flip_bit(largest(folder / 'params')),
    'half of the arrays': lambda folder: os.truncate(largest(folder / 'opt_state'), 1000),
    'an item': lambda folder: shutil.rmtree(folder / 'opt_state'),
    'its statement': lambda folder: (folder / '_CHECKPOINT_METADATA').unlink(),
    'half of its statement': lambda folder: os.truncate(folder / '_CHECKPOINT_METADATA', 50),
    'everything': lambda folder: [shutil.rmtree(folder), folder.mkdir()],
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_and_kept(trained, copy, damage, caplog, monkeypatch):
    config, expected = trained
    DAMAGE[damage](copy / 'checkpoints' / '9')
    monkeypatch.setattr(initialization.log, 'propagate', True)
    caplog.set_level(logging.INFO, 'pneumojax')
    loop.train(config, copy)
    assert f'{copy.path}/checkpoints/9' in caplog.text
    assert 'continues from step 6' in caplog.text
    assert [p.name for p in (copy / 'damaged').iterdir()] == ['9']
    assert_same_bits(final_items(copy, config), final_items(expected, config))
    assert copy.checkpoints.steps() == [6, 9]


def test_evaluation_of_a_damaged_checkpoint_is_refused(trained, copy):
    """Another checkpoint would have other figures."""
    flip_bit(largest(copy / 'checkpoints/9/average_params'))
    with pytest.raises(checkpoints.Damaged, match=r"checkpoints/9, item 'average_params'"):
        final_items(copy, trained[0])


def test_when_all_are_damaged_it_does_not_start_anew(trained, copy):
    for step in (6, 9):
        flip_bit(largest(copy / f'checkpoints/{step}/params'))
    with pytest.raises(UsageError, match=r'every checkpoint is damaged \(steps \[9, 6\]\)'):
        loop.train(trained[0], copy)
    assert copy.checkpoints.steps() == [6, 9]


def test_another_network_is_no_damage(trained, copy):
    """Or a changed program would move good checkpoints away."""
    config = trained[0].copy_and_resolve_references()
    config.model.width = 8
    (copy / 'config.json').unlink()
    shutil.rmtree(copy / 'tensorboard')
    with pytest.raises(UsageError, match='does not fit this model'):
        initialization.resume(copy, config, loop.optimizer.make_optimizer(
            config, loop.make_plan(config, dataset_lib.load(config))))  # fmt: skip
    assert copy.checkpoints.steps() == [6, 9]


def test_every_bit_counts():
    """Digests differ for values, shapes, dtypes and keys; not for the order of keys."""
    tree = {'b': {'k': np.arange(6, dtype=np.float32)}, 'a': (np.zeros(2), np.array(3, np.int32))}
    same = {'a': (np.zeros(2), np.array(3, np.int32)), 'b': {'k': np.arange(6, dtype=np.float32)}}
    assert checkpoints.digest(tree) == checkpoints.digest(same)
    others = [
        {**tree, 'b': {'k': np.arange(6, dtype=np.float32).reshape(2, 3)}},
        {**tree, 'b': {'k': np.arange(6, dtype=np.float32).view(np.int32)}},
        {**tree, 'b': {'l': np.arange(6, dtype=np.float32)}},
        {**tree, 'a': (-np.zeros(2), np.array(3, np.int32))},
        {**tree, 'a': (np.zeros(2), np.array(4, np.int32))},
    ]
    assert len({checkpoints.digest(t) for t in [tree, *others]}) == len(others) + 1


def test_flipped_bits_in_large_arrays_are_noticed(tmp_path):
    """Orbax alone returns them as other weights: nothing in its files tells."""
    run, rng = Run(tmp_path), np.random.default_rng(0)
    items = {'params': {'w': rng.normal(size=100_000).astype(np.float32)}}
    with checkpoints.Saver(run.checkpoints, keep=1) as saver:
        saver.save(1, items)
    path = largest(run / 'checkpoints')
    good = path.read_bytes()
    for position in rng.integers(len(good), size=10):
        data = bytearray(good)
        data[position] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        with pytest.raises(checkpoints.Damaged, match=r"checkpoints/1, item 'params'"):
            run.checkpoints.load(1, items)
    path.write_bytes(good)
    assert_same_bits(run.checkpoints.load(1, items), items)


class FullDisk:
    """An Orbax writer whose last write fails, as Orbax tells: at its end."""

    def close(self):
        raise OSError('No space left on device')


@pytest.mark.parametrize('failed', [None, FloatingPointError('not finite')])
def test_a_last_checkpoint_that_cannot_be_written_is_an_error(
    tmp_path, monkeypatch, caplog, failed
):
    """Only a warning where training has failed before: its own error says more."""
    monkeypatch.setattr(checkpoints.Checkpoints, 'writer', lambda self, keep: FullDisk())
    saver = checkpoints.Saver(Run(tmp_path).checkpoints, keep=1)
    saver.__enter__()
    if failed:
        saver.__exit__(type(failed), failed, None)
        assert 'No space left' in caplog.text
    else:
        with pytest.raises(UsageError, match=r'No space left.*is the disk full'):
            saver.__exit__(None, None, None)


# --- records -----------------------------------------------------------------------------------


def test_flipped_bits_of_a_record_stop_training_before_its_step(trained, tmp_path):
    config = trained[0].copy_and_resolve_references()
    config.data.cache = str(tmp_path / 'cache')
    dataset = dataset_lib.load(config)
    plan = loop.make_plan(config, dataset)
    batches = plan.order.reshape(-1, config.batch_size)
    new = {s: set(batches[s]) - set(batches[:s].ravel()) for s in (3, 4, 5)}
    step = max(s for s in new if new[s])  # the first to need an image that none before it did
    bad = int(dataset.train[new[step].pop()])
    image, _ = dataset.records[bad]
    (shard,) = dataset.records.folder.glob('*.array_record')
    data = bytearray(shard.read_bytes())
    data[data.index(image.tobytes()) + 100] ^= 1
    shard.write_bytes(data)
    run = Run(tmp_path / 'run')
    name = dataset.examples[bad].image_id
    with pytest.raises(UsageError, match=f'{dataset.records.folder}.*{name}.*delete the folder'):
        loop.train(config, run)
    assert run.checkpoints.latest_step() == step  # all that was done before it
    assert all(row['step'] <= step for row in run.metrics())
    shutil.rmtree(dataset.records.folder)
    loop.train(config, run)  # makes the cache anew, and goes on
    assert_same_bits(final_items(run, config), final_items(trained[1], config))


def test_records_notice_any_flipped_bit(trained, tmp_path):
    config = trained[0].copy_and_resolve_references()
    config.data.cache = str(tmp_path / 'cache')
    cache = dataset_lib.load(config).records
    expected = [cache[i] for i in range(len(cache))]
    (shard,) = cache.folder.glob('*.array_record')
    good, rng, noticed = shard.read_bytes(), np.random.default_rng(2), 0
    for position in rng.integers(len(good), size=60):
        data = bytearray(good)
        data[position] ^= 1 << rng.integers(8)
        shard.write_bytes(data)
        try:
            found = records.Records(cache.folder)
            found = [found[i] for i in range(len(found))]
        except UsageError as e:
            assert 'delete the folder' in str(e)  # noqa: PT017
            noticed += 1
        else:
            jax.tree.map(np.testing.assert_array_equal, found, expected)  # padding of the file
    assert noticed > 20


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize('where', ['loss', 'params'])
def test_what_is_not_finite_is_never_saved(config, tmp_path, monkeypatch, where):
    """At step 6, the end of an epoch: the metrics, or the weights after a step that was finite."""
    run = Run(tmp_path / 'run')
    make = loop.steps.make_train_step

    def make_train_step(*arguments):
        step = make(*arguments)

        def poisoned(state, batch):
            state, metrics = step(state, batch)
            nan = jax.numpy.where(state.step == 6, np.nan, 0.0)
            if where == 'loss':
                return state, {**metrics, 'loss': metrics['loss'] + nan}
            return state.replace(params=jax.tree.map(lambda x: x + nan, state.params)), metrics

        return poisoned

    monkeypatch.setattr(loop.steps, 'make_train_step', make_train_step)
    config.evaluation.every_epochs = 0  # validation would notice before
    with pytest.raises(
        FloatingPointError, match=r'not finite at step 6: .*learning rate 0\.0'
    ) as e:
        loop.train(config, run)
    assert run.checkpoints.steps() == [3]
    assert 'kept in checkpoint 3' in str(e.value)
    dataset = dataset_lib.load(config)
    order = loop.make_plan(config, dataset).order.reshape(-1, config.batch_size)[5]
    ids = [dataset.examples[dataset.train[i]].image_id for i in order]
    assert f'images {", ".join(ids)};' in str(e.value)
    monkeypatch.undo()
    state = initialization.resume(run, config, loop.optimizer.make_optimizer(
        config, loop.make_plan(config, dataset)))  # fmt: skip
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


# --- disks -------------------------------------------------------------------------------------


def test_a_full_disk_is_named_and_the_last_checkpoint_is_whole(trained, disk):
    config, expected = trained
    run = Run(disk / 'run')
    with pytest.raises((UsageError, OSError), match=r'(?i)no space left') as e:
        loop.train(config, run)
    assert str(disk) in str(e.value)
    step = run.checkpoints.latest_step()
    subprocess.run(['mount', '-o', 'remount,size=50m', str(disk)], check=True)
    if step is not None:
        tree = initialization.build.variable_shapes(config)
        run.checkpoints.load_variables(step, tree, averaged=False)
    loop.train(config, run)
    assert_same_bits(final_items(run, config), final_items(expected, config))


def test_a_read_only_run_directory_is_named_and_untouched(trained, disk):
    config, expected = trained
    subprocess.run(['mount', '-o', 'remount,size=50m', str(disk)], check=True)
    shutil.copytree(expected.path, disk / 'run')
    shutil.rmtree(disk / 'run/checkpoints/9')
    before = {p: p.stat().st_mtime_ns for p in disk.rglob('*')}
    subprocess.run(['mount', '-o', 'remount,ro', str(disk)], check=True)
    with pytest.raises(OSError, match='Read-only file system') as e:
        loop.train(config, Run(disk / 'run'))
    assert str(disk / 'run') in e.value.filename
    assert before == {p: p.stat().st_mtime_ns for p in disk.rglob('*')}


# --- a second process --------------------------------------------------------------------------

PROGRAM = """
import sys
from pneumojax.runs.run import Run
with Run(sys.argv[1]).lock():
    print('mine', flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_a_dead_one_owns_nothing(trained, copy):
    process = subprocess.Popen(
        [sys.executable, '-c', PROGRAM, copy.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env=os.environ | {'PYTHONPATH': str(REPOSITORY)},
    )  # fmt: skip
    try:
        assert process.stdout.readline() == 'mine\n'
        before = sorted(copy.path.rglob('*'))
        with pytest.raises(UsageError, match=rf'{copy.path} is in use by process {process.pid} on'):
            loop.train(trained[0], copy)
        assert sorted(copy.path.rglob('*')) == before
    finally:
        process.kill()
        process.wait()
    assert (copy / LOCK).exists()
    with copy.lock():
        assert json.loads((copy / LOCK).read_text())['pid'] == os.getpid()
    assert not (copy / LOCK).exists()
