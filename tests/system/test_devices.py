"""One device against four virtual ones, compared in another process that has the four.

That process is this file run as a program, once with float32 and one step (rounding of sums in
another order), once with float64 and twenty: there it can neither hide nor fake a difference. It
writes what it computed to an .npz file.
"""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import base
from pneumojax.data.sampling import Plan
from pneumojax.errors import UsageError
from pneumojax.models import build, tta
from pneumojax.runs import checkpoints
from pneumojax.runs.run import Run
from pneumojax.system.devices import Devices
from pneumojax.training import averaging, placement, steps
from pneumojax.training.optimizer import make_optimizer
from pneumojax.training.state import create_state
from tests.waiting import PATIENCE

ROOT = pathlib.Path(__file__).parents[2]
SIZE, BATCH = 32, 8
STEPS = {'float32': 1, 'float64': 20}
PARTS = ('metrics', 'params', 'batch_stats', 'average')


# --- In the other process ------------------------------------------------------------------------


def make_config(dtype):
    config = base.get_config()
    config.model.dtype = dtype
    config.num_epochs, config.batch_size = 1, BATCH
    config.model.width, config.model.stage_sizes, config.model.channels = 4, (1, 1, 1, 1), 1
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.02, 1e-3
    config.averaging.start, config.averaging.every_steps = 0, 1
    for name in (
        'intensity',
        'warp',
        'affine',
        'crop',
    ):  # flips show whether keys go with the examples
        config.augment[name] = 0.0
    return config


def make_batch(seed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (BATCH, 4, 4)).astype(np.uint8)
    image = coarse.repeat(SIZE // 4, 1).repeat(SIZE // 4, 2)
    # The lesions stand in the last rows only: a Dice per device would be another one.
    mask = (image > 200) & (np.arange(BATCH) >= 5)[:, None, None]
    return {
        'image': image,
        'mask': mask.astype(np.uint8),
        'example': rng.permutation(50)[:BATCH].astype(np.int32),
        'valid': np.arange(BATCH) < 7,
    }


def train(devices, config, run):
    """The parts of the state after the first and the last steps, as a flat dictionary of arrays."""
    count = STEPS[config.model.dtype]
    plan = Plan(np.zeros(count * BATCH, np.int32), np.array([count], np.int32), BATCH)
    optimizer = make_optimizer(config, plan)
    state = devices.replicate(create_state(build.initial_variables(config), optimizer))
    step = devices.compile(
        steps.make_train_step(config, optimizer, devices.axis_name), 'the step', donate=(0,)
    )
    results = {}
    for i in range(count):
        batch = make_batch(i)
        del batch['valid']
        batch = devices.shard(batch)
        with jax.transfer_guard('disallow'):  # nothing is left to be copied when a step begins
            state, metrics = step(state, batch)
        if i not in (0, 1, count - 1):
            continue
        average = averaging.find_average(state.opt_state).average
        parts = (metrics, state.params, state.batch_stats, average)
        for name, tree in zip(PARTS, devices.unreplicate(parts), strict=True):
            for path, leaf in jax.tree.leaves_with_path(tree):
                results[f'{name} {i} {jax.tree_util.keystr(path)}'] = leaf
    if devices.axis_name is not None:  # every device holds the same bits
        for leaf in jax.tree.leaves(jax.device_get((metrics, state))):
            np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
        restores_on_any_number(devices.unreplicate(state), run)
    return results


def restores_on_any_number(state, run):
    """A checkpoint written on four devices comes back on one and on two, bit for bit."""
    items = {name: getattr(state, name) for name in ('params', 'batch_stats', 'opt_state')}
    with checkpoints.Saver(run.checkpoints, keep=1) as saver:
        saver.save(int(state.step), items)
    restored = run.checkpoints.load(int(state.step), items)
    for count in (1, 2):
        devices = Devices(count)
        there = devices.unreplicate(devices.replicate(restored))
        jax.tree.map(np.testing.assert_array_equal, there, items)


def evaluate(devices, config):
    """Sums, statistics and predictions of the initial network."""
    initial = build.initial_variables(config)
    variables, batch = devices.replicate(initial), devices.shard(make_batch(9))
    sums = devices.compile(steps.make_eval_step(config, devices.axis_name), 'x')(variables, batch)
    statistics = devices.compile(steps.make_batch_stats_step(config, devices.axis_name), 'x')(
        variables['params'], variables['batch_stats'], batch
    )
    predict = devices.compile(
        tta.make_predict(config, build.make_model(config), ('horizontal',)), 'x'
    )
    predictions = devices.gather(predict(variables, batch['image']))
    results = {'predictions': predictions}
    for name, tree in {'sums': sums, 'statistics': statistics}.items():
        for path, leaf in jax.tree.leaves_with_path(devices.unreplicate(tree)):
            results[f'{name} {jax.tree_util.keystr(path)}'] = leaf
    return results


def round_trips(devices):
    tree = {'a': np.arange(24.0).reshape(8, 3), 'b': (np.float32(3), np.arange(8))}
    copies = devices.replicate(tree)
    assert copies['a'].shape == (4, 8, 3)
    assert len(copies['a'].devices()) == 4
    jax.tree.map(np.testing.assert_array_equal, devices.unreplicate(copies), tree)
    shared = {'a': tree['a'], 'b': tree['b'][1]}
    jax.tree.map(np.testing.assert_array_equal, devices.gather(devices.shard(shared)), shared)
    assert devices.shard(shared)['a'].shape == (4, 2, 3)
    added = devices.compile(lambda s, b: jax.tree.map(lambda x: x + s, b), 'x')(
        devices.replicate(np.float32(1)), devices.shard(shared)
    )
    np.testing.assert_array_equal(devices.gather(added)['a'], tree['a'] + 1)
    devices.check_batch_size('batch_size', 12)
    with pytest.raises(UsageError, match=r'config\.batch_size is 10: .* multiple of the 4 devices'):
        devices.check_batch_size('batch_size', 10)


class Stored:
    """Twelve records of 4 px: number i is full of i, its mask the last i pixels."""

    size, num_bytes = 4, 12 * 18

    def __len__(self):
        return 12

    def everything(self):
        return np.array(
            [[i] * 16 + np.packbits(np.arange(16) >= 16 - i).tolist() for i in range(12)], np.uint8
        )


def looks_up(devices):
    """Every device has all records, and each gives the examples of its share of the batch."""
    examples = np.array([11, 3, 0, 7, 3, 1, 9, 2], np.int32)
    batch = placement.OnDevice(devices, Stored()).place({'example': examples})
    assert batch['image'].shape == (4, 2, 4, 4)
    batch = devices.gather(batch)
    np.testing.assert_array_equal(batch['example'], examples)
    np.testing.assert_array_equal(batch['image'], examples[:, None, None] + np.zeros((4, 4)))
    last = np.arange(16) >= 16 - examples[:, None]
    np.testing.assert_array_equal(batch['mask'].reshape(8, 16), last)


def main(path, dtype):
    one, four = Devices(1), Devices()
    assert (one.count, one.axis_name, four.count, four.axis_name) == (1, None, 4, 'batch')
    round_trips(four)
    looks_up(four)
    results = {}
    config = make_config(dtype)
    for devices in (one, four):
        found = train(devices, config, Run(f'{path}.run'))
        if dtype == 'float64':
            found |= evaluate(devices, config)
        for name, leaf in found.items():
            results[f'{devices.count} {name}'] = leaf
    np.savez(path, **results)


# --- In this process -----------------------------------------------------------------------------


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """dtype -> what the other processes computed, both at once."""
    folder = tmp_path_factory.mktemp('devices')
    environment = os.environ | {
        'XLA_FLAGS': '--xla_force_host_platform_device_count=4',
        'JAX_PLATFORMS': 'cpu',
        'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',  # compiles in half the time
        'PYTHONPATH': str(ROOT),
    }
    running = {
        dtype: subprocess.Popen(
            [sys.executable, __file__, str(folder / f'{dtype}.npz'), dtype],
            cwd=ROOT, env=environment | {'JAX_ENABLE_X64': str(int(dtype == 'float64'))},
            stderr=subprocess.PIPE, text=True,
        )
        for dtype in STEPS
    }  # fmt: skip
    for process in running.values():
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors[-3000:]
    return {dtype: dict(np.load(folder / f'{dtype}.npz')) for dtype in STEPS}


def assert_agree(results, start, atol, count):
    """Arrays of one and of four devices whose names start so are equal but for rounding."""
    names = [name for name in results if name.startswith(f'1 {start}')]
    assert len(names) == count
    for name in names:
        one, four = results[name], results[f'4{name[1:]}']
        assert one.dtype == four.dtype
        np.testing.assert_allclose(four, one, atol=atol, rtol=atol, err_msg=name)


# Leaves: 12 encoder and 10 decoder convolutions, each with a BatchNorm; and the head.
COUNTS = {'metrics': 6, 'params': 3 * 22 + 2, 'batch_stats': 2 * 22, 'average': 3 * 22 + 2}


@pytest.mark.slow
@pytest.mark.parametrize('part', PARTS)
@pytest.mark.parametrize(('dtype', 'step'), [('float32', 0), ('float64', 0), ('float64', 19)])
def test_steps_on_four_devices_equal_those_on_one(results, dtype, step, part):
    assert_agree(results[dtype], f'{part} {step} ', 1e-5, COUNTS[part])
    names = [name for name in results[dtype] if f' {part} ' in name and part != 'metrics']
    assert {results[dtype][name].dtype.name for name in names} <= {dtype}


@pytest.mark.slow
def test_the_comparison_would_notice_a_wrong_gradient(results):
    found = results['float64']
    changes = [
        np.abs(found[name] - found[name.replace(' 1 ', ' 0 ')]).max()
        for name in found if name.startswith('1 params 1 ')
    ]  # fmt: skip
    assert np.median(changes) > 1e-4  # in one update; a factor of four would be ten tolerances


@pytest.mark.slow
def test_evaluation_on_four_devices_equals_one(results):
    found = results['float64']
    assert_agree(found, 'sums', 1e-5, 5)
    assert found["1 sums ['images']"] == 7  # of 8: the padded row counts nowhere
    assert_agree(found, 'statistics', 1e-5, COUNTS['batch_stats'])
    assert_agree(found, 'predictions', 1e-6, 1)
    assert found['4 predictions'].shape == (BATCH, SIZE, SIZE)


def test_one_device_keeps_what_it_was_given():
    devices = Devices(1)
    assert (devices.count, devices.axis_name) == (1, None)
    devices.check_batch_size('batch_size', 7)
    tree = {'a': np.arange(6).reshape(3, 2)}
    for there, back in ((devices.replicate, devices.unreplicate), (devices.shard, devices.gather)):
        moved = there(tree)
        assert isinstance(moved['a'], jax.Array)
        np.testing.assert_array_equal(back(moved)['a'], tree['a'])
        assert isinstance(back(moved)['a'], np.ndarray)


def test_a_replica_can_be_donated_and_the_original_lives_on():
    devices = Devices(1)
    original = devices.replicate({'a': np.arange(6.0)})
    add = devices.compile(lambda x: jax.tree.map(lambda y: y + 1, x), 'addition', donate=(0,))
    replica = devices.replicate(original)
    np.testing.assert_array_equal(devices.unreplicate(add(replica))['a'], np.arange(6.0) + 1)
    assert replica['a'].is_deleted()
    np.testing.assert_array_equal(devices.unreplicate(original)['a'], np.arange(6.0))


if __name__ == '__main__':
    main(*sys.argv[1:])
