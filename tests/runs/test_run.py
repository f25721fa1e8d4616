"""A run directory: whose it is, and that what was saved comes back, or not at all."""

import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from configs import base
from pneumojax.errors import UsageError, first_line
from pneumojax.runs.run import Run
from pneumojax.training import averaging
from tests.waiting import wait_for


def files(folder):
    """Path -> content of all that a folder holds."""
    return {str(p): p.is_file() and p.read_bytes() for p in pathlib.Path(folder).rglob('*')}


def test_what_a_killed_process_left_unfinished_is_removed_once_the_run_is_locked(tmp_path):
    (tmp_path / '.0a1b2c3d.scores.npz').touch()
    (tmp_path / '.mine').touch()
    with Run(tmp_path).lock():
        assert {path.name for path in tmp_path.iterdir()} == {'.lock', '.mine'}


# --- configuration -----------------------------------------------------------------------------


def test_a_run_starts_and_continues(tmp_path):
    config, run = base.get_config(), Run(tmp_path / 'a' / 'b')
    assert not run.exists
    run.start(config)
    assert run.exists
    assert run.config().to_dict() == config.copy_and_resolve_references().to_dict()
    before = files(tmp_path)
    config.data.root = 'elsewhere'  # where, not what
    config.data.workers = 3
    run.start(config)
    assert files(tmp_path) == before


def test_another_config_is_refused_and_nothing_touched(tmp_path):
    config, run = base.get_config(), Run(tmp_path / 'run')
    run.start(config)
    before = files(tmp_path)
    config.optimizer.learning_rate = 0.5
    with pytest.raises(UsageError, match=r'optimizer\.learning_rate: 0\.001 -> 0\.5') as e:
        run.start(config)
    assert str(run.path) in str(e.value)
    assert files(tmp_path) == before


def test_a_folder_of_something_else_is_refused_and_untouched(tmp_path):
    (tmp_path / 'thesis.tex').write_text('years of work')
    before = files(tmp_path)
    with pytest.raises(UsageError, match=r'not empty.*--workdir'):
        Run(tmp_path).start(base.get_config())
    with pytest.raises(UsageError, match=r'thesis\.tex'):
        Run(tmp_path / 'thesis.tex').start(base.get_config())
    with pytest.raises(UsageError, match=r'thesis\.tex'):
        Run(tmp_path / 'thesis.tex' / 'below').start(base.get_config())
    assert files(tmp_path) == before


def test_an_empty_folder_is_taken(tmp_path):
    Run(tmp_path).start(base.get_config())
    assert [p.name for p in tmp_path.iterdir()] == ['config.json']


@pytest.mark.parametrize('text', ['', '{', '[1]', 'null', '\xff'])
def test_a_broken_config_is_named(tmp_path, text):
    (tmp_path / 'config.json').write_bytes(text.encode('latin-1'))
    with pytest.raises(UsageError, match=r'config\.json'):
        Run(tmp_path).config()


def test_no_run_is_named(tmp_path):
    with pytest.raises(UsageError, match=r'nothing.*--workdir'):
        Run(tmp_path / 'nothing').config()


# --- small files -------------------------------------------------------------------------------


def test_json_is_written_whole_or_not_at_all(tmp_path):
    run = Run(tmp_path)
    run.write_json('some.json', {'mean_dice': 0.5, 'auc': None})
    for value in (math.nan, math.inf, object()):
        with pytest.raises((ValueError, TypeError)):
            run.write_json('some.json', {'mean_dice': value})
    assert run.read_json('some.json') == {'mean_dice': 0.5, 'auc': None}
    assert [p.name for p in tmp_path.iterdir()] == ['some.json']


def test_a_missing_or_broken_json_says_what_to_do(tmp_path):
    with pytest.raises(UsageError, match=r'thresholds\.json is missing.*--mode=evaluate'):
        Run(tmp_path).read_json('thresholds.json')
    with pytest.raises(UsageError, match='--mode=train on this run'):
        Run(tmp_path).read_json('split.json')
    (tmp_path / 'thresholds.json').write_text('{"top": ')
    with pytest.raises(UsageError, match=r'thresholds\.json is damaged'):
        Run(tmp_path).read_json('thresholds.json')


def test_a_half_written_line_is_left_out(tmp_path):
    run = Run(tmp_path)
    assert run.metrics() == []
    rows = [{'step': s, 'split': 'train', 'loss': s / 7} for s in (10, 20, 30)]
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    for end in range(len(text) - 2, len(text) - 20, -1):
        (tmp_path / 'metrics.jsonl').write_text(text[:end])
        assert run.metrics() == rows[:2]


def test_metrics_past_the_checkpoint_are_forgotten(tmp_path):
    run = Run(tmp_path)
    run.forget_metrics_after(5)  # no file yet
    assert not (tmp_path / 'metrics.jsonl').exists()
    rows = [{'step': s, 'split': split} for s in (10, 20, 30) for split in ('train', 'validation')]
    (tmp_path / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, rows)) + '\n{"step": 4')
    run.forget_metrics_after(20)
    assert run.metrics() == rows[:4]
    with (tmp_path / 'metrics.jsonl').open('a') as file:  # the next line is a line of its own
        file.write(json.dumps({'step': 21, 'split': 'train'}) + '\n')
    assert run.metrics() == [*rows[:4], {'step': 21, 'split': 'train'}]
    run.forget_metrics_after(0)
    assert run.metrics() == []


# --- checkpoints -------------------------------------------------------------------------------


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


def assert_same_bits(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert one.tobytes() == other.tobytes()


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


def test_a_run_of_a_plain_dict_is_read_as_a_config(tmp_path):
    """Such as a converted network's, which has a few keys only."""
    (tmp_path / 'config.json').write_text('{"name": "x", "model": {"stage_sizes": [1, 2]}}')
    config = Run(tmp_path).config()
    assert isinstance(config, ml_collections.ConfigDict)
    assert config.model.stage_sizes == (1, 2)


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (ValueError('one\ntwo'), 'ValueError: one'),
        (KeyError(), 'KeyError'),
        (OSError(' \n first'), 'OSError: first'),
        (ValueError('x' * 300), 'ValueError: ' + 'x' * 200),
    ],
)
def test_what_a_library_says_becomes_one_line(error, line):
    assert first_line(error) == line
