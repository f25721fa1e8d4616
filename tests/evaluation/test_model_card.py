"""What is written about a run: its card, its page and its calibration, from its files alone."""

import re

import numpy as np
import pytest

from pneumojax.drawing import calibration
from pneumojax.drawing.overlay import write_png
from pneumojax.errors import UsageError
from pneumojax.evaluation import model_card, run_report
from pneumojax.evaluation.wording import METRIC_NAMES
from tests.tiny_runs import write_run

EVALUATION = {
    **{
        name: {'value': 0.1 + i / 10, 'low': 0.05 + i / 10, 'high': 0.15 + i / 10}
        for i, name in enumerate(METRIC_NAMES)
    },
    'n': 57, 'n_positive': 13, 'step': 7, 'thresholds': 'of the other half',
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    run = write_run(tmp_path / 'run', rule=(0.625, 321, 0.25))
    run.write_json('evaluation.json', EVALUATION)
    run.write_json('split.json', {'train': ['a'] * 211, 'validation': ['b'] * 57})
    return run


def test_a_card_states_what_the_files_hold(run):
    path = model_card.write(run)
    assert path == run / 'model_card.md'
    text = path.read_text()
    for words in ('211 images trained on, 57 held out', '57 held-out images, 13 of them', '321',
                  '0.625', '0.25', 'width 4', '32 x 32 px', 'step 7', 'last'):  # fmt: skip
        assert words in text
    values = re.findall(r'^\| .* \| (0\.\d+) \| (0\.\d+) to (0\.\d+) \|$', text, re.MULTILINE)
    expected = [f'{EVALUATION[name][key]:.3f}' for name in METRIC_NAMES for key in EVALUATION[name]]
    assert [number for row in values for number in row] == expected
    assert 'phantoms' not in text
    assert str(run.path) not in text


def test_a_card_says_when_there_were_no_patients(run):
    config = run.config()
    config.data.phantoms.num_images = 268
    (run / 'config.json').unlink()
    from pneumojax import config as config_lib

    run.write_text('config.json', config_lib.to_json(config))
    assert 'Drawn phantoms, no radiographs' in model_card.make(run)
    run_report.write(run)
    assert 'drawn phantoms' in (run / 'report.html').read_text()


def test_runs_that_were_not_evaluated(run):
    (run / 'evaluation.json').unlink()
    for write in (model_card.write, run_report.write):
        with pytest.raises(UsageError, match='--mode=evaluate'):
            write(run)


def test_the_page_holds_the_pictures_that_are_there(run):
    variants = {'last weights': EVALUATION, 'final': EVALUATION}
    run.write_json('evaluation.json', EVALUATION | {'variants': variants})
    write_png(run / 'curves.png', np.zeros((4, 4), np.uint8))
    text = run_report.write(run).read_text()
    assert text.count('data:image/png') == 1
    assert text.count('0.100 (0.050 to 0.150)') == 2
    assert not re.search(r'https?:|<script', text)


def test_calibration_in_closed_form():
    histogram = np.zeros((2, 1000), np.int64)
    histogram[:, 100] = 75, 25  # probability 0.1005, a quarter inside
    histogram[:, 149] = 100, 0
    histogram[:, 999] = 0, 50
    mean, share, pixels = calibration.calibration(histogram, groups=20)
    assert pixels[[2, 19]].tolist() == [200, 50]
    assert pixels.sum() == 250
    assert mean[2] == pytest.approx((0.1005 + 0.1495) / 2)
    assert share[2] == pytest.approx(25 / 200)
    assert np.isnan(mean[5])
    assert calibration.expected_error(histogram) == pytest.approx(0.2 * 0.0005)


def test_probabilities_that_are_true_are_calibrated(tmp_path):
    rng = np.random.default_rng(0)
    probability = rng.random(300_000)
    inside = rng.random(300_000) < probability
    edges = np.linspace(0, 1, 1001)
    histogram = np.stack([np.histogram(probability[inside == k], edges)[0] for k in (0, 1)])
    assert calibration.expected_error(histogram) < 0.005
    assert calibration.expected_error(histogram[::-1]) > 0.4
    calibration.write_calibration(tmp_path / 'c.png', histogram)
    assert (tmp_path / 'c.png').stat().st_size > 10_000
