"""Calibration of image probabilities: whether 3 of 10 images with 0.3 show a pneumothorax.

`evaluation.calibration` asks the same of pixels.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from pneumojax.evaluation.metrics import Metric, Values, Weights
from pneumojax.evaluation.per_image import PerImage
from pneumojax.evaluation.sections.section import Measured, Section
from pneumojax.evaluation.statistics import logistic, proportions

BINS = 10  # of equally many images
Column = Callable[[PerImage], np.ndarray]  # which probabilities of the images are measured


def bins_of(probability: np.ndarray, bins: int = BINS) -> np.ndarray:
    """int [N]: the bin of each probability. Bins hold equally many images, but for ties, which
    share one."""
    edges = np.quantile(probability, np.arange(1, bins) / bins)
    return np.searchsorted(edges, probability, side='right')


def brier(column: Column) -> Metric:
    """Mean squared difference from what is true, 0 or 1 (Brier 1950)."""
    return lambda images, weights: (
        weights @ (column(images) - images.positive) ** 2 / weights.sum(axis=1)
    )


def expected_error(column: Column) -> Metric:
    """Mean over bins of |mean probability - share of positives|, weighted by images."""

    def measure(images: PerImage, weights: Weights) -> Values:
        probability = column(images)
        inside = bins_of(probability)[:, None] == np.arange(BINS)
        gap = (weights * (probability - images.positive)) @ inside
        return np.abs(gap).sum(axis=1) / weights.sum(axis=1)

    return measure


def slope(column: Column) -> Metric:
    """Slope of a logistic regression of the truth on the log-odds; below 1 is too sure."""

    def measure(images: PerImage, weights: Weights) -> Values:
        x = logistic.log_odds(column(images))
        return logistic.fit(x, images.positive.astype(np.float64), weights)[0]

    return measure


def intercept(column: Column) -> Metric:
    """What is to be added to the log-odds so that their mean is right; below 0 is too high."""

    def measure(images: PerImage, weights: Weights) -> Values:
        x = logistic.log_odds(column(images))
        return logistic.fit(x, images.positive.astype(np.float64), weights, 1.0)[1]

    return measure


def reliability(probability: np.ndarray, positive: np.ndarray) -> list[dict[str, Any]]:
    """The bins of a reliability diagram: mean probability, share of positives with its exact
    interval over images, and n."""
    found, bins = [], bins_of(probability)
    for number in np.unique(bins):
        here = bins == number
        share, n = float(positive[here].mean()), int(here.sum())
        low, high = proportions.exact_interval(share, n)
        mean = float(probability[here].mean())
        found.append({'mean': mean, 'share': share, 'low': low, 'high': high, 'n': n})
    return found


def error_by_chance(probability: np.ndarray, seed: int, samples: int = 500) -> float:
    """The mean expected error of as many images if these probabilities were right: what it cannot
    be expected to fall below."""
    rng = np.random.default_rng(seed)
    inside = bins_of(probability)[:, None] == np.arange(BINS)
    drawn = rng.random((samples, len(probability))) < probability
    return float(np.abs((probability - drawn) @ inside).sum(axis=1).mean() / len(probability))


def _probability(images: PerImage) -> np.ndarray:
    assert images.probability is not None  # or there is no such section
    return images.probability


def _score(images: PerImage) -> np.ndarray:
    return images.score


def _details(measured: Measured, *, seed: int, samples: int) -> dict[str, Any]:
    del samples
    images = measured.images
    return {
        'reliability': reliability(_probability(images), images.positive),
        'score_reliability': reliability(images.score, images.positive),
        'ece_by_chance': error_by_chance(_probability(images), seed),
    }


_MEASURES = {'brier': brier, 'ece': expected_error, 'slope': slope, 'intercept': intercept}
_NAMES = {
    'brier': 'Brier score',
    'ece': 'Expected calibration error',
    'slope': 'Calibration slope',
    'intercept': 'Calibration in the large',
}

IMAGE_CALIBRATION = Section(
    key='calibration',
    title='Calibration of image probabilities',
    note='Each image has the probability that a calibration on other patients gives its score; '
    'below, the score itself is taken for a probability. The expected calibration error has '
    f'{BINS} bins of equally many images and is above 0 by chance alone; resampling adds to it, so '
    'its interval lies too high and may not hold the value. The slope is 1 and '
    'calibration in the large (the intercept) 0 where probabilities are right; a slope below 1 '
    'means that they are too sure, an intercept below 0 that they are too high.',
    metrics={
        **{name: measure(_probability) for name, measure in _MEASURES.items()},
        **{f'score_{name}': measure(_score) for name, measure in _MEASURES.items()},
    },
    names={
        **_NAMES,
        **{f'score_{name}': f'{label}, raw score' for name, label in _NAMES.items()},
    },
    needs=('probability',),
    details=_details,
)
