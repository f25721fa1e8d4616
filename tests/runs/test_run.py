"""A run directory: whose it is, its configuration and its small files."""

import json
import math
import pathlib

import ml_collections
import pytest

from configs import base
from pneumojax import config as config_lib
from pneumojax.errors import UsageError, first_line
from pneumojax.runs.checkpoints import Checkpoints
from pneumojax.runs.run import Run
from pneumojax.system.progress import log


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


@pytest.mark.parametrize(
    'result',
    [
        'checkpoints/3', 'checkpoints/0', 'damaged/3', 'replaced/3', 'evaluation.json', 'notes.txt',
        'fold0/checkpoints/3', 'fold0/thresholds.json', 'fold0/stage1/damaged/3',
    ],
)  # fmt: skip
def test_another_config_is_refused_and_nothing_touched(tmp_path, result):
    config, run = base.get_config(), Run(tmp_path / 'run')
    for begun in (run, Run(run / 'fold0'), Run(run / 'fold0' / 'stage1')):
        begun.start(config)
    (run / result).mkdir(parents=True)
    before = files(tmp_path)
    config.optimizer.learning_rate = 0.5
    with pytest.raises(UsageError, match=r'optimizer\.learning_rate: 0\.001 -> 0\.5') as e:
        run.start(config)
    assert str(run.path) in str(e.value)
    assert files(tmp_path) == before


def begun(path, config):
    """A run directory as a training leaves it that was ended before its first checkpoint."""
    run = Run(path)
    run.start(config)
    run.write_json('split.json', {'train': ['a'], 'validation': ['b']})
    (run / 'metrics.jsonl').write_text('{"step": 1, "split": "train"}\n')
    (run / 'tensorboard').mkdir()
    (run / 'tensorboard' / 'events.out.tfevents.1').touch()
    (run / 'checkpoints' / '3.orbax-checkpoint-tmp').mkdir(parents=True)  # as Orbax names it
    return run


def test_a_run_without_a_checkpoint_is_started_again_with_another_config(tmp_path, messages):
    log.setLevel('INFO')
    config = base.get_config()
    run = begun(tmp_path / 'run', config)
    stage = begun(run / 'stage1', config)
    config.optimizer.learning_rate = 0.5
    run.start(config)
    assert run.config().optimizer.learning_rate == 0.5
    assert 'started again with optimizer.learning_rate: 0.001 -> 0.5' in messages[-1]
    left = {str(p.relative_to(run.path)) for p in run.path.rglob('*') if p.is_file()}
    theirs = {'config.json', 'split.json', 'metrics.jsonl', 'tensorboard/events.out.tfevents.1'}
    assert left == {'config.json', *(f'stage1/{name}' for name in theirs)}
    assert stage.config().optimizer.learning_rate == 0.001  # until it is started itself
    before = files(tmp_path)
    run.start(config)
    assert files(tmp_path) == before


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A run with a checkpoint at the end of its 80 epochs, and its configuration."""
    config, run = base.get_config(), Run(tmp_path / 'run')
    run.start(config)
    details = {'epoch': 80, 'num_epochs': 80, 'ended': True}
    monkeypatch.setattr(Checkpoints, 'latest_step', lambda self: 4000)
    monkeypatch.setattr(Checkpoints, 'has_any', lambda self: True)
    monkeypatch.setattr(Checkpoints, 'details', lambda self, step: details)
    return config, run, details


def test_the_epochs_of_a_finished_run_can_be_raised(finished):
    config, run, _ = finished
    run.write_json('split.json', {'train': ['a'], 'validation': ['b']})
    (run / 'metrics.jsonl').write_text('{"step": 1, "split": "train"}\n')
    config.num_epochs = 1000  # by mistake, before a further epoch was trained
    run.start(config)
    config.num_epochs = 100
    run.start(config)
    stored = run.config()
    assert (stored.num_epochs, stored.averaging.start) == (100, 87)  # which is 13 before the end
    assert {p.name for p in run.path.iterdir()} == {'config.json', 'split.json', 'metrics.jsonl'}
    with run.lock():
        config.num_epochs = 120
        with pytest.raises(UsageError, match='in use by process'):
            run.start(config)
    assert run.config().num_epochs == 100


@pytest.mark.parametrize(
    ('changes', 'details'),
    [
        ({'num_epochs': 79}, {}),
        ({'num_epochs': 100, 'seed': 1}, {}),
        ({'averaging.start': 10}, {}),
        ({'num_epochs': 100}, {'epoch': 79}),
        ({'num_epochs': 100}, {'ended': False}),
        ({'num_epochs': 100}, {'num_epochs': 100}),
    ],
)
def test_anything_else_of_a_finished_run_is_refused(finished, changes, details):
    config, run, stated = finished
    stated |= details
    config.update_from_flattened_dict(changes)
    before = files(run.path)
    with pytest.raises(UsageError, match='is the run of another config'):
        run.start(config)
    assert files(run.path) == before


def test_epochs_that_others_were_counted_by_are_not_raised(finished):
    """A part of the epochs for each share: the run would have been another from its start."""
    config, run, _ = finished
    config.sampling.positive_share = (0.8, 0.5)
    run.write_text('config.json', config_lib.to_json(config))
    config.num_epochs = 100
    with pytest.raises(UsageError, match='num_epochs: 80 -> 100'):
        run.start(config)


@pytest.mark.parametrize('place', ['.', 'stage1'])
def test_a_run_that_another_process_has_begun_is_not_taken_from_it(tmp_path, place):
    config = base.get_config()
    run = begun(tmp_path, config)
    begun(run / 'stage1', config)
    config.seed = 5
    with Run(run / place).lock():
        before = files(tmp_path)
        with pytest.raises(UsageError, match='in use by process'):
            run.start(config)
        assert files(tmp_path) == before
    run.start(config)
    assert run.config().seed == 5


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
