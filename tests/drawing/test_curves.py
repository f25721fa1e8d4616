"""What the curves show, read back from the figure's own data."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from pneumojax.drawing import curves, figures
from pneumojax.drawing.curves import Panels

LOSS, DICE, SWEEP, ROC, BY_SIZE, AREAS = range(6)


def history(epochs, steps=3):
    rows = []
    for epoch in range(epochs):
        for step in range(epoch * steps + 1, (epoch + 1) * steps + 1):
            train = {'loss': 1 / step, 'dice': 0.123, 'learning_rate': 0.1 / step}
            rows.append({'step': step, 'epoch': epoch, 'split': 'train', **train})
        scores = {'loss': 2 / (epoch + 1), 'dice': 0.5 + epoch / 100, 'positive_dice': epoch / 100}
        row = {'step': (epoch + 1) * steps, 'epoch': epoch, 'split': 'validation', **scores}
        rows.append(row)
    return rows


def evaluation(n=60):
    rng = np.random.default_rng(0)
    true_px = rng.integers(50, 40_000, n) * (np.arange(n) % 3 == 0)
    predicted_px = true_px * (np.arange(n) % 6 == 0)
    threshold = np.linspace(0.1, 0.9, 9)
    return {
        'roc': (np.array([0, 0.2, 1]), np.array([0, 0.8, 1])),
        'auc': 0.8,
        'sweep': (threshold, 0.9 - threshold / 9, 0.8 - threshold / 2),
        'chosen': (0.7, 0.3),
        'dice': np.where(true_px == predicted_px, 1.0, 0.0),
        'true_px': true_px,
        'predicted_px': predicted_px,
    }


def line(axes, label):
    (found,) = [drawn for drawn in axes.lines if drawn.get_label() == label]
    return np.array(found.get_data())


def words(axes):
    return '\n'.join(text.get_text() for text in axes.texts)


def test_every_panel_shows_its_data():
    given = evaluation()
    axes = curves.draw_curves(Panels(history=history(4), **given), title='Stage 2').axes
    np.testing.assert_allclose(line(axes[LOSS], 'train'), [range(1, 13), 1 / np.arange(1, 13)])
    np.testing.assert_allclose(line(axes[LOSS], 'validation')[0], [3, 6, 9, 12])
    np.testing.assert_allclose(line(axes[DICE], 'all images')[1], [0.5, 0.51, 0.52, 0.53])
    np.testing.assert_allclose(line(axes[DICE], 'positives')[1], [0, 0.01, 0.02, 0.03])
    np.testing.assert_allclose(line(axes[SWEEP], 'all images'), given['sweep'][:2])
    np.testing.assert_allclose(line(axes[SWEEP], 'positives only')[1], given['sweep'][2])
    for panel in (DICE, SWEEP):  # the all-empty score stands beside every Dice
        np.testing.assert_allclose(line(axes[panel], 'nothing predicted (0.667)')[1], 2 / 3)
    np.testing.assert_allclose(axes[ROC].lines[1].get_data(), given['roc'])
    assert 'AUC 0.800' in words(axes[ROC])
    points = np.concatenate([c.get_offsets() for c in axes[BY_SIZE].collections])
    positive = given['true_px'] > 0
    assert sorted(points[:, 0]) == sorted(given['true_px'][positive])
    assert axes[BY_SIZE].get_xscale() == 'log'
    assert '10 found\n10 missed\n0 false alarms' in words(axes[AREAS])


def test_dice_of_augmented_training_batches_is_not_mixed_in():
    axes = curves.draw_curves(Panels(history=history(2))).axes[DICE]
    assert not any(0.123 in drawn.get_ydata() for drawn in axes.lines)


def test_a_step_written_twice_counts_as_written_last():
    first, again = history(2), [row | {'loss': 0.5} for row in history(2)]
    steps, loss = line(curves.draw_curves(Panels(history=first + again)).axes[LOSS], 'train')
    assert steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert loss.tolist() == [0.5] * 6


def test_a_long_series_is_drawn_as_its_running_mean():
    rng = np.random.default_rng(1)
    rows = [
        {'step': s, 'split': 'train', 'loss': 1 - s / 2000 + 0.1 * rng.standard_normal()}
        for s in range(1, 1001)
    ]
    steps, smooth = line(curves.draw_curves(Panels(history=rows)).axes[LOSS], 'train')
    assert len(steps) == len(smooth) == 1000
    assert np.abs(smooth - (1 - steps / 2000))[50:-50].max() < 0.06
    assert len(curves.draw_curves(Panels(history=rows)).axes[LOSS].lines[0].get_xdata()) == 1000


def test_the_mean_of_similar_sizes_is_their_mean():
    size = np.geomspace(100, 30_000, 40)
    given = {'dice': np.repeat(np.arange(8) / 10, 5), 'true_px': size, 'predicted_px': size}
    axes = curves.draw_curves(Panels(**given)).axes[BY_SIZE]
    centres, means = line(axes, 'mean of similar sizes')
    np.testing.assert_allclose(means, np.arange(8) / 10)
    np.testing.assert_allclose(centres, [np.prod(s) ** 0.2 for s in size.reshape(8, 5)])


@pytest.mark.parametrize(
    ('missing', 'panel', 'said'),
    [
        ({'history': ()}, LOSS, 'no loss'),
        ({'history': ()}, DICE, 'no Dice'),
        ({'sweep': None}, SWEEP, 'no threshold'),
        ({'roc': None, 'auc': None}, ROC, 'with and without pneumothorax'),
        ({'true_px': np.zeros(60, int)}, BY_SIZE, 'no image with pneumothorax'),
        ({'predicted_px': np.zeros(60, int)}, AREAS, '20 missed, 0 false alarms'),
        ({'dice': (), 'true_px': (), 'predicted_px': ()}, AREAS, 'no image evaluated'),
    ],
)
def test_a_missing_part_is_said_in_its_panel(missing, panel, said):
    given = evaluation() | {'history': history(1)} | missing
    assert said in words(curves.draw_curves(Panels(**given)).axes[panel])


def test_no_positives_no_epochs_one_image(tmp_path):
    given = evaluation(1) | {'sweep': (np.array([0.5]), np.array([1.0]), None)}
    rows = [{'step': 1, 'split': 'validation', 'loss': 0.3, 'positive_dice': None}]
    figures.save(curves.draw_curves(Panels(history=rows, **given)), tmp_path / 'a.png')
    figures.save(curves.draw_curves(Panels()), tmp_path / 'b.png')
    assert {path.name for path in tmp_path.iterdir()} == {'a.png', 'b.png'}


def test_the_file_is_a_picture_in_colour(tmp_path):
    path = tmp_path / 'run' / 'curves.png'
    figures.save(curves.draw_curves(Panels(history=history(3), **evaluation())), path)
    picture = cv2.imread(str(path))
    height, width, _ = picture.shape
    assert width > 1200
    assert height > 700
    colours = picture.reshape(-1, 3).astype(int)
    blue = np.array([0xB2, 0x72, 0x00])  # BGR of the first colour
    assert (np.abs(colours - blue).max(axis=1) < 8).sum() > 500


def test_pyplot_and_its_global_state_stay_out():
    code = (
        'import sys; from pneumojax.drawing import curves; curves.draw_curves(curves.Panels()); '
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
