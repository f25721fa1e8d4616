"""What a checkpoint holds comes back bit for bit, or not at all."""

import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from pneumojax.errors import UsageError
from pneumojax.runs.run import Run
from pneumojax.training import averaging
from tests.same_bits import assert_same_bits
from tests.waiting import wait_for


def odd_values():
    """Every kind of float32 that could change on the way."""
    return np.array([0.0, -0.0, 1e-45, -1e-40, 3.4e38, math.inf, -math.inf, math.nan], np.float32)


def make_params():
    rng = np.random.default_rng(0)
    return {
        'encoder': {'conv': {'kernel': rng.normal(size=(3, 3, 2, 4)).astype(np.float32)}},
        'decoder': {'bias': rng.normal(size=5).astype(np.float32)},
    }


OPTIMIZERS = {
    'sgd': optax.sgd(0.1, momentum=0.9),
    'adam': optax.adam(optax.cosine_decay_schedule(0.1, 10)),
    'adamw_clipped': optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1)),
    'mean': optax.chain(
        optax.adam(0.1), averaging.stochastic_weight_average(lambda count: count > 1)
    ),
    'ema': optax.chain(optax.sgd(0.1), averaging.exponential_moving_average(0.9)),
    'accumulated': optax.MultiSteps(
        optax.chain(
            optax.adam(0.1), averaging.stochastic_weight_average(lambda count: count % 2 == 0)
        ),
        2,
    ).gradient_transformation(),
    'none': optax.chain(optax.identity()),
}


def trained_state(optimizer):
    """An optimizer state in which nothing is zero any more."""
    params = jax.tree.map(jnp.asarray, make_params())
    state = optimizer.init(params)
    for _ in range(5):  # an odd number: accumulation is half-way
        updates, state = optimizer.update(jax.tree.map(jnp.cos, params), state, params)
        params = optax.apply_updates(params, updates)
    return jax.device_get(state)


@pytest.fixture(scope='module')
def states():
    return {name: trained_state(optimizer) for name, optimizer in OPTIMIZERS.items()}


@pytest.fixture(scope='module')
def run_saved(tmp_path_factory, states):
    """A run with a checkpoint at step 3."""
    run = Run(tmp_path_factory.mktemp('saved') / 'run')
    run.start(base.get_config())
    items = {'params': make_params(), 'batch_stats': {'odd': odd_values()}}
    with run.checkpoints.writer(keep=2) as checkpointer:
        checkpointer.save_checkpointables_async(3, {**items, **states}, force=True)
    return run


@pytest.fixture
def copy(run_saved, tmp_path):
    """The same, for a test to break."""
    shutil.copytree(run_saved.path, tmp_path / 'run')
    return Run(tmp_path / 'run')


def shapes_of(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype), tree)


def test_parameters_come_back_bit_for_bit(run_saved):
    wanted = {'params': make_params(), 'batch_stats': {'odd': odd_values()}}
    assert_same_bits(run_saved.checkpoints.load(3, shapes_of(wanted)), wanted)


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_optimizer_states_come_back_bit_for_bit(run_saved, states, name):
    shapes = jax.eval_shape(OPTIMIZERS[name].init, make_params())
    got = run_saved.checkpoints.load(3, {name: shapes})[name]
    assert_same_bits(got, states[name])
    found, expected = averaging.find_average(got), averaging.find_average(states[name])
    assert (found is None) == (name not in ('mean', 'ema', 'accumulated'))
    if found is not None:
        assert found.members == expected.members > 0


def test_names_and_step(run_saved):
    assert run_saved.checkpoints.latest_step() == 3
    assert run_saved.checkpoints.items(3) == {'params', 'batch_stats', *OPTIMIZERS}
    assert Run(run_saved.path / 'nothing').checkpoints.latest_step() is None


def without_bias(params):
    del params['decoder']['bias']


def with_another(params):
    params['decoder']['scale'] = np.ones(5, np.float32)


def another_shape(params):
    params['decoder']['bias'] = np.ones(6, np.float32)


def another_dtype(params):
    params['decoder']['bias'] = np.ones(5, np.float16)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (without_bias, 'Keys only in the checkpoint: decoder/bias; only in the model: none'),
        (with_another, 'Keys only in the checkpoint: none; only in the model: decoder/scale'),
        (another_shape, r"decoder/bias \(\(5,\), 'float32'\) instead of \(\(6,\), 'float32'\)"),
        (another_dtype, r"decoder/bias \(\(5,\), 'float32'\) instead of \(\(5,\), 'float16'\)"),
    ],
)
def test_a_network_that_differs_is_refused(run_saved, change, message):
    params = make_params()
    change(params)
    with pytest.raises(UsageError, match=message) as e:
        run_saved.checkpoints.load(3, {'params': params})
    assert f"{run_saved.path}/checkpoints/3, item 'params'" in str(e.value)
    assert '\n' not in str(e.value)


def test_another_optimizer_is_refused(run_saved):
    shapes = jax.eval_shape(OPTIMIZERS['adam'].init, make_params())
    with pytest.raises(UsageError, match=r"item 'sgd'.*only in the model: 0/count, 0/mu"):
        run_saved.checkpoints.load(3, {'sgd': shapes})


def test_a_missing_item_is_named_with_those_there(run_saved):
    with pytest.raises(UsageError, match=r"checkpoints/3 has no 'average_params'.*'params'"):
        run_saved.checkpoints.load_variables(3, {'params': {}, 'batch_stats': {}}, averaged=True)


def test_variables_are_the_averaged_ones_when_asked(tmp_path):
    run, shapes = Run(tmp_path), {'params': {'w': np.zeros(2)}, 'batch_stats': {'m': np.zeros(1)}}
    items = {
        'params': {'w': np.array([1.0, 2.0])}, 'batch_stats': {'m': np.array([3.0])},
        'average_params': {'w': np.array([4.0, 5.0])},
        'average_batch_stats': {'m': np.array([6.0])},
    }  # fmt: skip
    with run.checkpoints.writer(keep=1) as checkpointer:
        checkpointer.save_checkpointables_async(1, items, force=True)
    last = run.checkpoints.load_variables(1, shapes, averaged=False)
    assert_same_bits(last, {name: items[name] for name in shapes})
    average = run.checkpoints.load_variables(1, shapes, averaged=True)
    assert_same_bits(average, {name: items[f'average_{name}'] for name in shapes})


def test_the_newest_steps_are_kept(tmp_path):
    run = Run(tmp_path)
    with run.checkpoints.writer(keep=2) as checkpointer:
        for step in (9, 10, 11):
            item = {'params': {'w': np.full(2, step)}}
            checkpointer.save_checkpointables_async(step, item, force=True)
    assert sorted(p.name for p in (tmp_path / 'checkpoints').iterdir()) == ['10', '11']
    assert run.checkpoints.latest_step() == 11  # not '9', which is the last by name


def test_incomplete_checkpoints_are_not_seen(copy):
    folder = copy / 'checkpoints'
    shutil.copytree(folder / '3', folder / '7.orbax-checkpoint-tmp')
    (folder / '8').mkdir()
    (folder / '9').write_text('a file')
    shutil.copytree(folder / '3', folder / '10')
    (folder / '10' / '_CHECKPOINT_METADATA').unlink()
    shutil.copytree(folder / '3', folder / 'best')
    assert copy.checkpoints.latest_step() == 3


DAMAGE = {
    'missing': lambda path: path.unlink(),
    'empty': lambda path: path.write_bytes(b''),
    'half': lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    'noise': lambda path: path.write_bytes(b'\xff' * path.stat().st_size),
}


@pytest.mark.parametrize('damage', DAMAGE)
@pytest.mark.parametrize('name', ['_METADATA', 'manifest.ocdbt', 'd/*'])
def test_a_damaged_checkpoint_is_one_line(copy, name, damage):
    paths = list((copy / 'checkpoints/3/params').glob(name))
    assert paths
    for path in paths:
        DAMAGE[damage](path)
    with pytest.raises(UsageError, match=r"checkpoints/3, item 'params'.*(damaged|loaded)") as e:
        copy.checkpoints.load(3, {'params': make_params()})
    assert '\n' not in str(e.value)


def test_a_checkpoint_that_is_gone_is_one_line(copy):
    shutil.rmtree(copy / 'checkpoints/3')
    saved = copy.checkpoints
    for read in (saved.items, lambda step: saved.load(step, {'params': make_params()})):
        with pytest.raises(UsageError, match=r'checkpoints/3 cannot be read'):
            read(3)


PROGRAM = """
import sys, numpy as np
from pneumojax.runs.run import Run
with Run(sys.argv[1]).checkpoints.writer(keep=3) as checkpointer:
    for step in range(1, 1000):
        items = {'params': {str(i): np.full(500_000, step, np.float32) for i in range(8)}}
        checkpointer.save_checkpointables_async(step, items, force=True)
"""


@pytest.mark.slow
def test_a_process_killed_while_saving_leaves_whole_checkpoints(tmp_path):
    run, folder = Run(tmp_path), tmp_path / 'checkpoints'
    process = subprocess.Popen(
        [sys.executable, '-c', PROGRAM, str(tmp_path)], cwd=pathlib.Path(__file__).parents[2]
    )

    def writes_another():
        names = os.listdir(folder) if folder.is_dir() else []
        return (run.checkpoints.latest_step() or 0) >= 2 and not all(map(str.isdecimal, names))

    wait_for(writes_another, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    step = run.checkpoints.latest_step()
    assert step >= 2
    wanted = {'params': {str(i): np.full(500_000, step, np.float32) for i in range(8)}}
    assert_same_bits(run.checkpoints.load(step, shapes_of(wanted)), wanted)
    with run.checkpoints.writer(keep=3) as checkpointer:  # goes on, and clears what was left
        checkpointer.save_checkpointables_async(5000, {'params': {'w': np.ones(2)}}, force=True)
    assert run.checkpoints.latest_step() == 5000
    assert all(p.name.isdecimal() for p in folder.iterdir())
