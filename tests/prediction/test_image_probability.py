"""The calibrated probability of an image beside its score, from the run to every file about it."""

import json
import math

import highdicom
import pytest

from pneumojax.data.files import dicom
from pneumojax.errors import UsageError
from pneumojax.evaluation import metrics
from pneumojax.prediction import load
from pneumojax.prediction.ensemble import Ensemble
from tests.prediction.predictions import predict, results
from tests.tiny_runs import CALIBRATION, write_run


def uncalibrated(path):
    """A run that an earlier version evaluated."""
    run = write_run(path)
    stated = run.read_json('thresholds.json')
    del stated['probability']
    run.write_json('thresholds.json', stated)
    return run


def calibrated(score):
    """The definition, but for the millionth that keeps 0 and 1 finite."""
    slope, intercept = CALIBRATION['slope'], CALIBRATION['intercept']
    return 1 / (1 + math.exp(-slope * math.log(score / (1 - score)) - intercept))


def test_the_probability_is_that_of_the_score_beside_it(run, images, output):
    rows = results(output)
    function = load.load(run.path, runtime='jax')
    for row in rows:
        score, probability = float(row['score']), float(row['probability'])
        assert probability == pytest.approx(calibrated(score), abs=2e-5)
        if row['file'] != 'image1.dcm':  # whose pixels are no squares
            pixels = function(dicom.read(images / row['file']))
            assert score == pytest.approx(metrics.image_score(pixels), abs=1e-5)
    assert len({row['score'] for row in rows}) > 1
    with (output / 'results.jsonl').open() as lines:
        for line, row in zip(lines, rows, strict=True):
            stated = json.loads(line)
            for name in ('probability', 'score'):
                assert stated[name] == pytest.approx(float(row[name]), abs=1e-6)
    page = (output / 'report.html').read_text()
    assert 'calibrated on 100 held-out images, 22 of them (22%)' in page
    assert f'data-probability="{stated["probability"]}"' in page


def test_a_run_without_a_calibration_gives_scores_and_says_so(images, tmp_path, messages):
    old = uncalibrated(tmp_path / 'old')
    assert predict([old], images, tmp_path / 'out', outputs=('sr',)) == 0
    assert sum('no calibration of image probabilities' in m for m in messages) == 1
    assert all(row['probability'] == row['score'] for row in results(tmp_path / 'out'))
    report = highdicom.sr.srread(next((tmp_path / 'out' / 'sr').iterdir()))
    assert 'The probability of an image is not calibrated' in report.to_json()
    messages.clear()  # the folder is continued, and says nothing else
    assert predict([old], images, tmp_path / 'out', outputs=('sr',)) == 0


def test_a_report_says_what_its_probability_means(run, images, tmp_path):
    assert predict([run], images / 'image3.dcm', tmp_path / 'out', outputs=('sr',)) == 0
    report = highdicom.sr.srread(tmp_path / 'out' / 'sr' / 'image3.dcm')
    assert (
        'calibrated on 100 held-out images, 22 of them (22%) with pneumothorax' in report.to_json()
    )
    (row,) = results(tmp_path / 'out')
    assert row['probability'] in report.to_json()
    assert row['score'] not in report.to_json()


def test_another_calibration_is_another_prediction(images, tmp_path):
    run = write_run(tmp_path / 'run')
    assert predict([run], images / 'image3.dcm', tmp_path / 'out') == 0
    stated = run.read_json('thresholds.json')
    other = stated | {'probability': CALIBRATION | {'slope': 0.7}}
    run.write_json('thresholds.json', other)
    with pytest.raises(UsageError, match=r'probability\.slope: 0.5 -> 0.7'):
        predict([run], images / 'image3.dcm', tmp_path / 'out')


def test_the_first_runs_calibration_counts(run, tmp_path):
    second = uncalibrated(tmp_path / 'second')
    assert Ensemble([run, second], 'jax').image_probability(0.25) == pytest.approx(
        calibrated(0.25), abs=1e-5
    )
    assert Ensemble([second, run], 'jax').image_probability(0.25) == 0.25
    assert 0 < Ensemble([run], 'jax').image_probability(0.0) < 0.01


@pytest.mark.parametrize('stated', ['0.5', 3, {}, CALIBRATION | {'slope': -1}, []])
def test_a_damaged_calibration_is_refused(tmp_path, stated):
    run = write_run(tmp_path / 'run')
    run.write_json('thresholds.json', run.read_json('thresholds.json') | {'probability': stated})
    with pytest.raises(UsageError, match=r'thresholds.json.* probability'):
        Ensemble([run], 'jax')
