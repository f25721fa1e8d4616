"""How well whole images are told apart, and what their probabilities are worth: one picture."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pneumojax.drawing.figures import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    missing,
    new_figure,
    style_axes,
)

Rows = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Panels:
    """What the panels show. A panel without data says so.

    Attributes:
      before, after: bins of the raw score and of the calibrated probability: 'mean', 'share',
        'low', 'high', see `evaluation.sections.image_calibration.reliability`.
      errors: expected calibration error before and after, named in the legend.
      precision_recall: (recall, precision), from the highest score down; None without positives.
      precision: average precision, named in its panel.
      share: of images with pneumothorax.
      decision_curve: 'threshold', 'probability', 'low', 'high', 'all', 'marked': lists.
      predictive_values: 'prevalence', 'own' if it is that of the images, 'ppv' and 'npv', each
        {'value', 'low', 'high'}.
    """

    before: Rows = ()
    after: Rows = ()
    errors: tuple[float, float] = (0.0, 0.0)
    precision_recall: tuple[np.ndarray, np.ndarray] | None = None
    precision: float | None = None
    share: float = 0.0
    decision_curve: Mapping[str, Sequence[float]] | None = None
    predictive_values: Rows = ()


def draw_image_level(panels: Panels, title: str = '') -> Figure:
    """Four panels: reliability, precision and recall, the decision curve, predictive values.

    Args:
      panels: what to show.
      title: heading.
    """
    figure = new_figure((10.4, 9.4), title)
    axes = figure.subplots(2, 2).ravel()
    for one in axes:
        style_axes(one)
    _reliability(axes[0], panels)
    _precision_recall(axes[1], panels)
    _decision_curve(axes[2], panels.decision_curve, panels.share)
    _predictive_values(axes[3], panels.predictive_values)
    return figure


def _reliability(axes: Axes, panels: Panels) -> None:
    axes.set_title('Calibration of image probabilities')
    if not panels.after:
        missing(axes, 'probabilities are not calibrated')
        return
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle='--')
    drawn = (('raw score', panels.before, ORANGE), ('calibrated', panels.after, BLUE))
    for (name, rows, colour), error in zip(drawn, panels.errors, strict=True):
        mean, share, low, high = (_column(rows, key) for key in ('mean', 'share', 'low', 'high'))
        label = f'{name} (expected error {error:.3f})'
        axes.plot(mean, share, color=colour, linewidth=1.8, marker='o', ms=4, label=label)
        axes.vlines(mean, low, high, color=colour, linewidth=1, alpha=0.6)
    axes.set(
        xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel='probability of the image',
        ylabel='share with pneumothorax',
    )  # fmt: skip
    axes.set_box_aspect(1)
    axes.legend(frameon=False, fontsize=9, loc='upper left')


def _precision_recall(axes: Axes, panels: Panels) -> None:
    axes.set_title('Precision and recall of the score')
    if panels.precision_recall is None:
        missing(axes, 'no image with pneumothorax')
        return
    recall, precision = panels.precision_recall
    label = f'no skill: {panels.share:.2f}'
    axes.axhline(panels.share, color=GREY, linewidth=1.2, linestyle='-.', label=label)
    # Precision holds from the recall before up to its own: what average precision adds up.
    axes.step(recall, precision, where='pre', color=BLUE, linewidth=2)
    if panels.precision is not None:
        axes.text(0.04, 0.12, f'average precision {panels.precision:.3f}', fontsize=12)
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel='recall (sensitivity)', ylabel='precision')
    axes.set_box_aspect(1)
    axes.legend(frameon=False, fontsize=9, loc='lower left')


def _decision_curve(axes: Axes, curve: Mapping[str, Sequence[float]] | None, share: float) -> None:
    axes.set_title('Decision curve: net benefit')
    if curve is None:
        missing(axes, 'probabilities are not calibrated')
        return
    at = curve['threshold']
    axes.axhline(0, color=GREY, linewidth=1.2, label='act on none')
    for name, colour, label in (
        ('all', FAINT, 'act on all'), ('marked', GREEN, 'act on marked images'),
        ('probability', BLUE, 'act from the probability on'),
    ):  # fmt: skip
        axes.plot(at, curve[name], color=colour, linewidth=1.8, label=label)
    axes.fill_between(at, curve['low'], curve['high'], color=BLUE, alpha=0.12, linewidth=0)
    highest = max(share, *curve['high'], 0.01)
    axes.set(
        xlim=(0, at[-1]), ylim=(-0.25 * highest, 1.1 * highest),
        xlabel='probability from which one acts', ylabel='net benefit',
    )  # fmt: skip
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(frameon=False, fontsize=9, loc='best')


def _predictive_values(axes: Axes, rows: Rows) -> None:
    axes.set_title('Predictive values of the marks')
    drawn = False
    for name, colour, label in (
        ('ppv', BLUE, 'pneumothorax, if marked'), ('npv', INK, 'none, if not marked'),
    ):  # fmt: skip
        known = [row for row in rows if row[name]['value'] is not None]
        if not known:
            continue
        drawn = True
        at, found = _column(known, 'prevalence'), [row[name] for row in known]
        value, low, high = (_column(found, key) for key in ('value', 'low', 'high'))
        axes.plot(at, value, color=colour, linewidth=1.8, marker='o', ms=4, label=label)
        axes.vlines(at, low, high, color=colour, linewidth=1, alpha=0.6)
    if not drawn:
        missing(axes, 'not defined: nothing or everything is marked,\nor one class is missing')
        return
    prevalences = _column(rows, 'prevalence')
    axes.set(xscale='log', ylim=(0, 1.02), xlabel='prevalence', ylabel='predictive value')
    own = next((row['prevalence'] for row in rows if row.get('own')), np.inf)
    labels = [  # the images' own share is often near one of the others
        '' if p != own and 0.8 < p / own < 1.25 else f'{100 * p:.3g} %' for p in prevalences
    ]
    axes.set_xticks(prevalences, labels, rotation=45)
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=9, loc='lower right')


def _column(rows: Rows, key: str) -> np.ndarray:
    return np.array([row[key] for row in rows], float)
