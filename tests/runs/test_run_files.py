"""The small files of a run, damaged or foreign: one line each, whatever is in them."""

import contextlib
import json

import pytest

from configs import base
from pneumojax import config as config_lib
from pneumojax.errors import UsageError
from pneumojax.evaluation import model_card, run_report
from pneumojax.evaluation.checklists import reporting
from pneumojax.models import pretrained
from pneumojax.runs import run_files
from pneumojax.runs.run import Run
from pneumojax.system import limits

FIGURE = {'value': 0.8, 'low': None, 'high': None}
SOUND = {
    'thresholds.json': {
        'top': 0.7, 'area': 800, 'bottom': 0.3, 'reference_pixels': 1048576, 'step': 7,
        'weights': 'last', 'flips': [], 'image_size': 256,
        'probability': {'slope': 0.5, 'intercept': -1.0, 'images': 12, 'positives': 3},
    },
    'evaluation.json': {
        **dict.fromkeys(run_files.FIGURES, FIGURE), 'n': 12, 'n_positive': 3, 'step': 7,
        'thresholds': 'x', 'variants': {}, 'trained_on': {'n': 30, 'n_positive': 9},
        'data': {'masks': 'files', 'split': 'drawn', 'patients': {'trained_on': 9, 'held_out': 3}},
    },
    'split.json': {'train': ['a'], 'validation': ['b']},
}  # fmt: skip
ODD = (None, 'x', -1, 10**400, float('inf'), float('nan'), [], [1], {}, '<script>', True)


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / 'run')
    run.start(base.get_config())
    for name, value in SOUND.items():
        run.write_json(name, value)
    return run


def read(run):
    """All that is written from these files."""
    model_card.make(run)
    reporting.make(run)
    run_report.write(run)


def test_what_is_sound_passes(run):
    read(run)


@pytest.mark.parametrize('name', SOUND)
def test_every_odd_value_is_refused_or_harmless(run, name):
    refused = 0
    for key in SOUND[name]:
        for value in ODD:
            (run / name).write_text(json.dumps(SOUND[name] | {key: value}))
            try:
                read(run)
            except UsageError as error:
                refused += name in str(error)
        (run / name).write_text(json.dumps({k: v for k, v in SOUND[name].items() if k != key}))
        optional = (
            'variants',
            'thresholds',
            'reference_pixels',
            'probability',
            'trained_on',
            'data',
        )
        if key not in optional:
            with pytest.raises(UsageError, match=name):
                run.read_json(name)
    assert refused >= 7 * len(SOUND[name])
    assert '<script>' not in (run / 'report.html').read_text()


@pytest.mark.parametrize('group', ['trained_on', 'data'])
def test_odd_values_in_what_is_said_of_the_data(run, group):
    sound = SOUND['evaluation.json']
    for key in sound[group]:
        for value in (*ODD, {'trained_on': 'x', 'held_out': None}):
            report = sound | {group: sound[group] | {key: value}}
            (run / 'evaluation.json').write_text(json.dumps(report))
            with contextlib.suppress(UsageError):
                read(run)
                assert '<script>' not in reporting.make(run)


@pytest.mark.parametrize('text', ['[' * 100_000, '7', '[]', 'null', '{"a": ' * 9999, '\udcff'])
@pytest.mark.parametrize('name', [*SOUND, 'config.json'])
def test_what_is_no_object(run, name, text):
    (run / name).write_bytes(text.encode('utf-8', 'surrogateescape'))
    with pytest.raises(UsageError, match=name) as error:
        run.config() if name == 'config.json' else run.read_json(name)
    assert '\n' not in str(error.value)


def test_files_of_gigabytes_are_not_read(run, monkeypatch):
    monkeypatch.setattr(limits, 'MAX_JSON_BYTES', 50)
    monkeypatch.setattr(limits.read_text, '__defaults__', (50,))
    for name in SOUND:
        with pytest.raises(UsageError, match='limit of 50'):
            run.read_json(name)


def test_a_metrics_line_that_is_none_ends_them(run):
    good = '{"step": 1, "split": "train"}\n'
    for bad in ('7', '[1]', '{"step": "1", "split": "x"}', '{"split": "x"}', '[' * 99999, '\xff'):
        (run / 'metrics.jsonl').write_bytes((good + bad + '\n' + good).encode('latin-1'))
        assert [row['step'] for row in run.metrics()] == [1]


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('model.width', 10**9), ('model.width', 64.5), ('model.stage_sizes', (10**9, 4, 6, 3)),
        ('evaluation.batch_size', 10**12), ('image_size', True), ('seed', float('nan')),
        ('name', '..'), ('name', '.hidden'), ('name', 'a\0b'), ('data.num_folds', 10**400),
    ],
)  # fmt: skip
def test_configs_that_ask_for_too_much(key, value):
    values = json.loads(config_lib.to_json(base.get_config()))
    *groups, last = key.split('.')
    node = values
    for group in groups:
        node = node[group]
    node[last] = value
    with pytest.raises(UsageError, match=last):
        config_lib.check(config_lib.from_json(json.dumps(values)))


def test_a_converted_network_of_a_billion_blocks(tmp_path):
    model = {'width': 64, 'stage_sizes': [10**9] * 4, 'channels': 3}
    about = {'kind': 'unet', 'num_classes': None}
    (tmp_path / 'config.json').write_text(
        json.dumps({'name': 'x', 'model': model, 'converted': about})
    )
    with pytest.raises(UsageError, match='does not describe a network'):
        pretrained.load(tmp_path)
