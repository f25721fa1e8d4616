"""The FROC picture shows the figures that it is given."""

import numpy as np
import pytest

from pneumojax.drawing.froc import draw_froc

RATES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)


def read(rate, value, half=0.1):
    """One place where the curve is read."""
    return {'false_marks': rate, 'value': value, 'low': value - half, 'high': value + half}


def test_curve_and_intervals_are_those_given():
    points = [
        read(rate, value) for rate, value in zip(RATES, np.linspace(0.3, 0.8, 7), strict=True)
    ]
    axes = draw_froc([0, 0.2, 3], [0.1, 0.4, 0.7], points).axes[0]
    curve = axes.lines[0]
    assert curve.get_xdata()[1:3].tolist() == [0.2, 3]
    assert curve.get_ydata().tolist() == [0.1, 0.4, 0.7, 0.7]  # flat behind the last mark
    (bars,) = axes.containers
    assert [tuple(bar[:, 0]) for bar in bars[2][0].get_segments()] == [(r, r) for r in RATES]
    ends = np.array([bar[:, 1] for bar in bars[2][0].get_segments()])
    np.testing.assert_allclose(ends, [[p['low'], p['high']] for p in points])
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        '1/8', '1/4', '1/2', '1', '2', '4', '8'
    ]  # fmt: skip


@pytest.mark.parametrize('low', [None, 0.5])
def test_no_interval_or_one_of_no_width(low):
    points = [{'false_marks': rate, 'value': 0.5, 'low': low, 'high': low} for rate in RATES]
    axes = draw_froc([0.0], [0.5], points).axes[0]
    assert bool(axes.containers) == (low is not None)


def test_without_lesions_it_says_so():
    points = [{'false_marks': r, 'value': None, 'low': None, 'high': None} for r in RATES]
    axes = draw_froc([0, 1], [None, None], points).axes[0]
    assert [text.get_text() for text in axes.texts] == ['no true lesion']
    assert not axes.lines
