"""The picture of whole images shows its data, and says what it has none of."""

import numpy as np

from pneumojax.drawing.image_level import Panels, draw_image_level

RELIABILITY, PRECISION, DECISION, PREDICTIVE = range(4)


def bins(shift):
    return [{'mean': m, 'share': m + shift, 'low': m / 2, 'high': m + 0.2} for m in (0.1, 0.4, 0.7)]


def figure(value, spread=0.05):
    return {'value': value, 'low': value - spread, 'high': value + spread}


def panels():
    at = np.arange(1, 51) / 100
    return Panels(
        before=bins(-0.1), after=bins(0.0), errors=(0.1, 0.02),
        precision_recall=(np.array([0.5, 1.0]), np.array([1.0, 0.6])), precision=0.8, share=0.2,
        decision_curve={
            'threshold': at, 'probability': 0.2 - at / 4, 'all': 0.2 - at, 'marked': 0.15 - at / 5,
            'low': 0.1 - at / 4, 'high': 0.3 - at / 4,
        },
        predictive_values=[
            {'prevalence': p, 'ppv': figure(2 * p), 'npv': figure(1 - p)} for p in (0.01, 0.1, 0.22)
        ],
    )  # fmt: skip


def line(axes, start):
    (found,) = [drawn for drawn in axes.lines if str(drawn.get_label()).startswith(start)]
    return np.array(found.get_data())


def words(axes):
    return '\n'.join(text.get_text() for text in axes.texts)


def test_every_panel_shows_its_data():
    given = panels()
    axes = draw_image_level(given, 'Title').axes
    means = [0.1, 0.4, 0.7]
    np.testing.assert_allclose(line(axes[RELIABILITY], 'calibrated'), [means, means])
    np.testing.assert_allclose(line(axes[RELIABILITY], 'raw score')[1], [0, 0.3, 0.6])
    assert 'average precision 0.800' in words(axes[PRECISION])
    curve = given.decision_curve
    found = line(axes[DECISION], 'act from the probability')
    np.testing.assert_allclose(found, [curve['threshold'], curve['probability']])
    np.testing.assert_allclose(line(axes[DECISION], 'act on all')[1], curve['all'])
    assert axes[DECISION].get_ylim()[1] > max(curve['high'])  # but not down to where all harm
    assert axes[DECISION].get_ylim()[0] > min(curve['all'])
    np.testing.assert_allclose(line(axes[PREDICTIVE], 'pneumothorax')[1], [0.02, 0.2, 0.44])


def test_what_is_missing_is_said():
    undefined = {'value': None, 'low': None, 'high': None}
    rows = [{'prevalence': 0.1, 'ppv': undefined, 'npv': undefined}]
    axes = draw_image_level(Panels(predictive_values=rows)).axes
    assert 'not calibrated' in words(axes[RELIABILITY])
    assert 'not calibrated' in words(axes[DECISION])
    assert 'no image with pneumothorax' in words(axes[PRECISION])
    assert 'not defined' in words(axes[PREDICTIVE])
    one = [rows[0] | {'npv': figure(0.9)}]  # nothing is marked
    assert len(draw_image_level(Panels(predictive_values=one)).axes[PREDICTIVE].lines) == 1
