"""Images with against images without a pneumothorax: how well scores and marks tell them apart."""

from typing import Any

import numpy as np
from jaxtyping import Float64

from pneumojax.evaluation import metrics
from pneumojax.evaluation.metrics import Metric, Values, Weights
from pneumojax.evaluation.per_image import PerImage
from pneumojax.evaluation.sections.section import Measured, Section
from pneumojax.evaluation.statistics import bootstrap

PREVALENCES = (0.01, 0.05, 0.10, 0.22)
# Of the marks: sensitivity and specificity.
_SHARES = {k: m for k, m in metrics.METRICS.items() if isinstance(m, metrics.Share)}
THRESHOLDS = np.arange(1, 51) / 100  # of probability, for the decision curve


def average_precision(images: PerImage, weights: Weights) -> Values:
    """Mean precision at each step of recall, from the highest score down, without interpolation."""
    hits, alarms = (of[:, ::-1].cumsum(axis=1) for of in metrics.at_scores(images, weights))
    precision = hits / np.maximum(hits + alarms, 1e-300)
    steps = np.diff(hits, axis=1, prepend=0)
    return (steps * precision).sum(axis=1) / hits[:, -1]


def precision_recall(images: PerImage) -> tuple[np.ndarray, np.ndarray] | None:
    """(recall, precision) at each distinct score, from the highest down; None without positives."""
    if not images.positive.any():
        return None
    counts = metrics.at_scores(images, np.ones((1, len(images))))
    hits, alarms = (of[0, ::-1].cumsum() for of in counts)
    return hits / hits[-1], hits / (hits + alarms)


def sensitivity_at(least: float) -> Metric:
    """The highest sensitivity of all thresholds whose specificity is at least `least`."""

    def measure(images: PerImage, weights: Weights) -> Values:
        hits, alarms = (of[:, ::-1].cumsum(axis=1) for of in metrics.at_scores(images, weights))
        allowed = alarms <= (1 - least) * alarms[:, -1:] + 1e-9  # whole numbers, but for rounding
        best = np.where(allowed, hits, 0).max(axis=1)  # 0: nothing is marked
        return np.where(alarms[:, -1] > 0, best / hits[:, -1], np.nan)

    return metrics.of_positives(measure)


def specificity_at(least: float) -> Metric:
    """The highest specificity of all thresholds whose sensitivity is at least `least`."""

    def measure(images: PerImage, weights: Weights) -> Values:
        missed, cleared = (of.cumsum(axis=1) for of in metrics.at_scores(images, weights))
        # The threshold lies above the images so far.
        allowed = missed <= (1 - least) * missed[:, -1:] + 1e-9
        best = np.where(allowed, cleared, 0).max(axis=1)  # 0: everything is marked
        return np.where(missed[:, -1] > 0, best / cleared[:, -1], np.nan)

    return metrics.of_negatives(measure)


def predictive_values(
    sensitivity: np.ndarray, specificity: np.ndarray, prevalence: float
) -> tuple[np.ndarray, np.ndarray]:
    """(positive, negative) predictive value at a prevalence, by Bayes; NaN where nothing (or
    everything) is marked."""
    true_positive, false_positive = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    true_negative, false_negative = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    with np.errstate(invalid='ignore', divide='ignore'):
        return (
            true_positive / (true_positive + false_positive),
            true_negative / (true_negative + false_negative),
        )


def net_benefit(
    images: PerImage, weights: Weights, thresholds: Float64[np.ndarray, ' T'] = THRESHOLDS
) -> dict[str, Float64[np.ndarray, 'S T']]:
    """Net benefit of acting on probabilities from a threshold on, on all images, and on those
    that the rule marks; acting on none has 0.

    It is true positives less false positives times the odds of the threshold, per image.

    References:
      Vickers and Elkin 2006, "Decision curve analysis", Medical Decision Making 26.
    """
    assert images.probability is not None
    acted = {
        'probability': images.probability[:, None] >= thresholds,
        'all': np.ones((len(images), 1), bool),
        'marked': images.marked[:, None],
    }
    odds, total = thresholds / (1 - thresholds), weights.sum(axis=1, keepdims=True)
    positive = weights * images.positive
    return {
        name: (positive @ of - (weights - positive) @ of * odds) / total
        for name, of in acted.items()
    }


def _details(measured: Measured, *, seed: int, samples: int) -> dict[str, Any]:
    images = measured.images
    found: dict[str, Any] = {'exact': _exact(images)}
    found['predictive_values'] = _predictive_values(images, seed, samples)
    if images.probability is not None:
        found['decision_curve'] = _decision_curve(images, seed, samples)
    return found


def _exact(images: PerImage) -> dict[str, Any]:
    """Sensitivity and specificity of the marks with exact intervals."""
    values = metrics.compute(images, None, _SHARES)[0]
    return {
        name: {'value': float(value), **share.exact_interval(images, value)}
        for (name, share), value in zip(_SHARES.items(), values, strict=True)
        if np.isfinite(value)
    }


def _predictive_values(images: PerImage, seed: int, samples: int) -> list[dict[str, Any]]:
    """Of the marks, at `PREVALENCES` and at that of these images."""
    values = metrics.compute(images, None, _SHARES)[0]
    drawn = metrics.on_resamples(_SHARES, images, seed=seed, samples=samples)
    rng = np.random.default_rng(seed)
    for column, value, share in zip(drawn.T, values, _SHARES.values(), strict=True):
        if value in (0, 1):
            # No resample differs. A Beta distribution whose 2.5 % (97.5 %) quantile is the exact
            # bound stands for them.
            n = share.exact_interval(images, value)['n']
            column[:] = rng.beta(n if value else 1, 1 if value else n, len(column))
    own = float(images.positive.mean())
    table = []
    for prevalence in sorted({*PREVALENCES, own} - {0.0, 1.0}):
        # The value first, then what is drawn.
        sensitivity, specificity = np.column_stack([values, drawn.T])
        of_all = predictive_values(sensitivity, specificity, prevalence)
        row: dict[str, Any] = {'prevalence': prevalence, 'own': prevalence == own}
        for name, (value, *draws) in zip(('ppv', 'npv'), of_all, strict=True):
            low, high = bootstrap.interval(value, np.array(draws))
            if low is not None and high is not None:  # a Beta's draws lie to one side of 0 or 1
                low, high = min(low, float(value)), max(high, float(value))
            row[name] = {'value': metrics.number(value), 'low': low, 'high': high}
        table.append(row)
    return table


def _decision_curve(images: PerImage, seed: int, samples: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([
        net_benefit(images, weights)['probability']
        for weights in bootstrap.resamples(rng, images.patients, samples)
    ])  # fmt: skip
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    whole = net_benefit(images, np.ones((1, len(images))))
    return {
        'threshold': THRESHOLDS.tolist(),
        **{name: values[0].tolist() for name, values in whole.items()},
        'low': low.tolist(),
        'high': high.tolist(),
    }


IMAGE_LEVEL = Section(
    key='image_level',
    title='Images with and without pneumothorax',
    note='AUPRC is average precision; without skill it is the share of positives. A sensitivity at '
    'a specificity is the highest of all thresholds of the score whose specificity on these images '
    'is at least as stated, and the reverse; the threshold is chosen on the same images. Intervals '
    'marked exact are by Clopper and Pearson over patients, where a bootstrap would have no width.',
    metrics={
        'auprc': average_precision,
        'sensitivity_at_specificity_95': sensitivity_at(0.95),
        'sensitivity_at_specificity_99': sensitivity_at(0.99),
        'specificity_at_sensitivity_95': specificity_at(0.95),
        'specificity_at_sensitivity_99': specificity_at(0.99),
    },
    names={
        'auprc': 'Area under the precision-recall curve',
        'sensitivity_at_specificity_95': 'Sensitivity at 95 % specificity',
        'sensitivity_at_specificity_99': 'Sensitivity at 99 % specificity',
        'specificity_at_sensitivity_95': 'Specificity at 95 % sensitivity',
        'specificity_at_sensitivity_99': 'Specificity at 99 % sensitivity',
    },
    details=_details,
)
