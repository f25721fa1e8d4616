"""What the tags refuse, what is said about children, and what a network of phantoms says."""

import logging

import pydicom
import pytest

from pneumojax import config as config_lib
from pneumojax.errors import UsageError
from pneumojax.prediction import outputs
from pneumojax.prediction.ensemble import Ensemble
from pneumojax.system import progress
from tests.evaluation.test_model_card import EVALUATION
from tests.prediction.predictions import predict, results
from tests.tiny_runs import write_run

TAGS = {
    'chest': {'BodyPartExamined': 'W034 Chest', 'PatientAge': '003Y'},
    'hand': {'BodyPartExamined': 'HAND'},
    'lateral': {'ViewPosition': 'LL'},
    'nothing': {'BodyPartExamined': '', 'ViewPosition': ''},
    'strange': {'BodyPartExamined': 'ZZYZX'},
}


@pytest.fixture
def source(images, tmp_path):
    folder = tmp_path / 'in'
    folder.mkdir()
    for number, (name, tags) in enumerate(TAGS.items(), 2):
        made = pydicom.dcmread(images / f'image{number}.dcm')
        with pydicom.config.disable_value_validation():
            for keyword, value in tags.items():
                setattr(made, keyword, value)
            made.save_as(folder / f'{name}.dcm')
    return folder


def test_other_parts_and_views_are_skipped_or_noted(run, source, tmp_path, messages):
    progress.log.setLevel(logging.INFO)
    assert predict([run], source, tmp_path / 'out') == 0
    rows = {row['ImageId']: row for row in results(tmp_path / 'out')}
    assert {name: row['status'] for name, row in rows.items()} == {
        'chest': 'ok', 'hand': 'skipped', 'lateral': 'skipped', 'nothing': 'ok', 'strange': 'ok',
    }  # fmt: skip
    assert 'body part HAND' in rows['hand']['reason']
    assert 'lateral view' in rows['lateral']['reason']
    assert 'child' in rows['chest']['reason']
    assert rows['nothing']['reason'] == ''
    assert 'ZZYZX' not in rows['strange']['reason']
    assert 'none that is known' in rows['strange']['reason']
    assert any(m.startswith('2 of the skipped are no frontal chest') for m in messages)
    assert not (tmp_path / 'out' / 'seg' / 'hand.dcm').exists()

    assert predict([run], source, tmp_path / 'any', accept='any') == 0
    taken = {row['ImageId']: row for row in results(tmp_path / 'any')}
    assert {row['status'] for row in taken.values()} == {'ok'}
    assert 'trained on chests only' in taken['hand']['reason']
    assert 'trained on frontal views only' in taken['lateral']['reason']
    for name in ('chest', 'nothing', 'strange'):
        assert taken[name] == rows[name]
    # Rows of hands must not stay in a folder of chests.
    with pytest.raises(UsageError, match=r"another prediction \(accept: 'any' -> 'chest'\)"):
        predict([run], source, tmp_path / 'any')


def test_an_unknown_word_to_accept():
    with pytest.raises(UsageError, match='--accept'):
        outputs.Options(accept='hands')


# --- networks of phantoms ------------------------------------------------------------------------


def phantoms(path, **data):
    """A run whose configuration, or whose evaluation, names phantoms as its data."""
    run = write_run(path)
    config = run.config()
    with config.unlocked():
        config.update_from_flattened_dict(data)
    run.write_text('config.json', config_lib.to_json(config))
    return run


def test_a_network_of_phantoms_says_so(images, tmp_path, messages):
    run = phantoms(tmp_path / 'run', **{'data.phantoms.num_images': 40})
    source, out = images / 'image2.dcm', tmp_path / 'out'
    assert predict([run], source, out) == 0
    assert sum('tiny0 learned from drawn phantoms' in message for message in messages) == 1
    made = pydicom.dcmread(out / 'seg' / 'image2.dcm')
    assert made.ContentDescription == 'Research, not for diagnosis; trained on drawn phantoms'
    (algorithm,) = made.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert 'trained_on=drawn phantoms' in algorithm.AlgorithmParameters
    assert 'trained on drawn phantoms' in (out / 'report.html').read_text()


def test_one_that_only_started_from_phantoms_does_not(images, tmp_path, messages):
    run = phantoms(tmp_path / 'run', init_from=str(phantoms(tmp_path / 'first').path))
    assert predict([run], images / 'image2.dcm', tmp_path / 'out') == 0
    assert not any('phantoms' in message for message in messages)
    made = pydicom.dcmread(tmp_path / 'out' / 'seg' / 'image2.dcm')
    assert made.ContentDescription == 'Research, not for diagnosis'
    assert 'phantoms' not in str(made)


def test_phantoms_that_were_drawn_before_are_known_from_the_evaluation(tmp_path):
    run = phantoms(tmp_path / 'run')
    run.write_json('evaluation.json', EVALUATION)
    assert not Ensemble([run], 'jax').learned_from_phantoms
    run.write_json('evaluation.json', EVALUATION | {'phantoms': True})
    assert Ensemble([run], 'jax').learned_from_phantoms == ['tiny0']
