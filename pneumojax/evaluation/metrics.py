"""Scores of predicted masks: the competition's Dice and what it hides.

The mean Dice counts an image without pneumothorax as 1 when nothing is predicted, so

    mean = (1 - prevalence) * specificity + prevalence * (Dice on positives)

and an empty prediction everywhere already scores 0.78 on SIIM. Hence every summary holds the
all-empty score and the two parts beside the mean.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Shaped

from pneumojax.evaluation.per_image import PerImage
from pneumojax.evaluation.statistics import bootstrap, proportions

Weights = Float64[np.ndarray, 'S N']  # how often each of N images counts in each of S samples
Values = Float64[np.ndarray, ' S']  # a metric in each sample; NaN where it is undefined
Metric = Callable[[PerImage, Weights], Values]
SCORE_SHARE = 0.001  # of all pixels: 1,049 at 1024 x 1024, half of the 10 % quantile of lesions


def dice(predicted: Shaped[np.ndarray, '...'], true: Shaped[np.ndarray, '...']) -> float:
    """Dice coefficient of two masks, `2|P and T| / (|P| + |T|)`; 1 when both are empty.

    Args:
      predicted: mask of any dtype and shape; every nonzero value is inside (0/1, 0/255, bool).
      true: mask of the same shape.

    Returns:
      The score of one image in SIIM-ACR Pneumothorax Segmentation, in [0, 1].

    Raises:
      ValueError: the shapes differ.
    """
    predicted, true = np.asarray(predicted) != 0, np.asarray(true) != 0
    if predicted.shape != true.shape:
        raise ValueError(f'predicted mask {predicted.shape} and true mask {true.shape} differ')
    total = np.count_nonzero(predicted) + np.count_nonzero(true)
    return 2 * np.count_nonzero(predicted & true) / total if total else 1.0


def image_score(probability: Float[np.ndarray, '...']) -> float:
    """Image-level score: the probability that 0.1 % of the pixels reach (at least one pixel).

    A maximum would depend on one stray pixel, a mean on the size of the lesion. This quantile asks
    whether a region as small as the smallest usual lesions is marked.

    Args:
      probability: pixel probabilities in [0, 1], usually [H, W].

    Returns:
      A score in [0, 1]; for AUC, and for `image_probability` to calibrate.
    """
    flat = probability.reshape(-1)
    rank = math.ceil(flat.size * SCORE_SHARE)
    return float(np.partition(flat, flat.size - rank)[flat.size - rank])


def roc(
    scores: Float[np.ndarray, ' N'], positive: Bool[np.ndarray, ' N']
) -> tuple[Float[np.ndarray, ' K'], Float[np.ndarray, ' K']] | None:
    """Points of the ROC curve, one per distinct score, from (0, 0) to (1, 1).

    Args:
      scores: image-level scores, finite.
      positive: images with pneumothorax.

    Returns:
      (1 - specificity, sensitivity); None when one class is missing.
    """
    if positive.all() or not positive.any():
        return None
    distinct, index = np.unique(-scores, return_inverse=True)
    hits = np.bincount(index, positive, len(distinct)).cumsum() / positive.sum()
    alarms = np.bincount(index, ~positive, len(distinct)).cumsum() / (~positive).sum()
    return np.append(0.0, alarms), np.append(0.0, hits)


def mean_dice(images: PerImage, weights: Weights) -> Values:
    """Mean Dice over all images."""
    return weights @ images.dice / weights.sum(axis=1)


def all_empty_dice(images: PerImage, weights: Weights) -> Values:
    """Mean Dice of marking nothing at all: the share of negative images."""
    return weights @ ~images.positive / weights.sum(axis=1)


def positive_dice(images: PerImage, weights: Weights) -> Values:
    """Mean Dice over images with pneumothorax."""
    return weights @ (images.dice * images.positive) / (weights @ images.positive)


def sensitivity(images: PerImage, weights: Weights) -> Values:
    """Share of positive images with a non-empty predicted mask."""
    return weights @ (images.positive & images.marked) / (weights @ images.positive)


def specificity(images: PerImage, weights: Weights) -> Values:
    """Share of negative images with an empty predicted mask."""
    negatives = weights.sum(axis=1) - weights @ images.positive
    return weights @ ~(images.positive | images.marked) / negatives


def at_scores(
    images: PerImage, weights: Weights
) -> tuple[Float64[np.ndarray, 'S K'], Float64[np.ndarray, 'S K']]:
    """Weights of the positives and of the negatives with each of K distinct scores, rising."""
    order = np.argsort(images.score, kind='stable')
    ranked = images.score[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))  # of each tied block
    positives = np.add.reduceat((weights * images.positive)[:, order], starts, axis=1)
    negatives = np.add.reduceat((weights * ~images.positive)[:, order], starts, axis=1)
    return positives, negatives


def auc(images: PerImage, weights: Weights) -> Values:
    """Area under the ROC curve: P(positive is higher) + P(equal) / 2 (Mann and Whitney 1947)."""
    positive, negative = images.positive, np.flatnonzero(~images.positive)
    negative = negative[np.argsort(images.score[negative], kind='stable')]
    total = np.concatenate([np.zeros((len(weights), 1)), weights[:, negative].cumsum(axis=1)], 1)
    ranked, scores = images.score[negative], images.score[positive]
    sides: tuple[Literal['left', 'right'], ...] = ('left', 'right')  # ties count half
    lower = sum(total[:, np.searchsorted(ranked, scores, side)] for side in sides) / 2
    hits = weights[:, positive]
    return (hits * lower).sum(axis=1) / (hits.sum(axis=1) * total[:, -1])


@dataclasses.dataclass(frozen=True)
class Share:
    """A metric that is a share of some images, so that exact intervals exist."""

    measure: Metric
    of: Callable[[PerImage], Bool[np.ndarray, ' N']]  # which images it is a share of

    def __call__(self, images: PerImage, weights: Weights) -> Values:
        """As every metric."""
        return self.measure(images, weights)

    def exact_interval(self, images: PerImage, value: float) -> dict[str, Any]:
        """{'low', 'high', 'n'} for a value of it, see `proportions.exact_interval`.

        Images of one patient are not independent, so n counts patients: with several images of
        some, the interval is as wide as if all images of a patient agreed.
        """
        n = len({p for p, counts in zip(images.patients, self.of(images), strict=True) if counts})
        low, high = proportions.exact_interval(value, n)
        return {'low': low, 'high': high, 'n': n}


def of_positives(measure: Metric) -> Share:
    """A share of the positive images."""
    return Share(measure, lambda images: images.positive)


def of_negatives(measure: Metric) -> Share:
    """A share of the negative images."""
    return Share(measure, lambda images: ~images.positive)


# What evaluation.json holds, in the order of every report.
METRICS: dict[str, Metric] = {
    'mean_dice': mean_dice,
    'all_empty_dice': all_empty_dice,
    'positive_dice': positive_dice,
    'sensitivity': of_positives(sensitivity),
    'specificity': of_negatives(specificity),
    'auc': auc,
}


def compute(
    images: PerImage, weights: Weights | None = None, wanted: Mapping[str, Metric] = METRICS
) -> Float64[np.ndarray, 'S M']:
    """M metrics on samples of images; NaN where one is undefined, such as AUC of one class.

    Args:
      images: N images.
      weights: of the images in each sample; None: one sample, in which each image counts once.
      wanted: the metrics.
    """
    weights = np.ones((1, len(images))) if weights is None else weights
    with np.errstate(invalid='ignore', divide='ignore'):
        return np.stack([metric(images, weights) for metric in wanted.values()], axis=1)


def summarize(images: PerImage, *, seed: int, samples: int = bootstrap.SAMPLES) -> dict[str, Any]:
    """What `evaluation.json` holds: each metric with its 95 % interval over patients.

    Args:
      images: at least one.
      seed: of the bootstrap; the same seed gives the same intervals.
      samples: resamples.

    Returns:
      {name: {'value', 'low', 'high'}} for each name in `METRICS`, and 'n', 'n_positive'. Undefined
      metrics are None, never NaN, so the result is valid JSON.
    """
    found = with_intervals(METRICS, images, seed=seed, samples=samples)
    # These three and no more: programs of others read them. `image_level` says what is exact.
    summary = {name: {k: of[k] for k in ('value', 'low', 'high')} for name, of in found.items()}
    return summary | {'n': len(images), 'n_positive': int(images.positive.sum())}


def with_intervals(
    wanted: Mapping[str, Metric], images: PerImage, *, seed: int, samples: int
) -> dict[str, Any]:
    """{name: {'value', 'low', 'high'}} of some metrics, as `summarize` gives them.

    A share that is exactly 0 or 1 is the same on every resample. Its interval is exact instead,
    and there is another entry to say so: 'interval': 'exact'.
    """
    if not wanted:
        return {}
    drawn = on_resamples(wanted, images, seed=seed, samples=samples)
    values = compute(images, None, wanted)[0]
    return {
        name: interval(metric, images, value, column)
        for (name, metric), value, column in zip(wanted.items(), values, drawn.T, strict=True)
    }


def interval(
    metric: Metric, images: PerImage, value: float, drawn: Float64[np.ndarray, ' S']
) -> dict[str, Any]:
    """One metric as `with_intervals` gives it, from its values on all images and on resamples."""
    low, high = bootstrap.interval(value, drawn)
    found: dict[str, Any] = {'value': number(value), 'low': low, 'high': high}
    if isinstance(metric, Share) and value in (0, 1):
        exact = metric.exact_interval(images, value)
        found |= {'low': exact['low'], 'high': exact['high'], 'interval': 'exact'}
    return found


def on_resamples(
    wanted: Mapping[str, Metric], images: PerImage, *, seed: int, samples: int
) -> Float64[np.ndarray, 'S M']:
    """M metrics on S resamples of patients; the same seed draws the same patients."""
    rng = np.random.default_rng(seed)
    return np.concatenate([
        compute(images, weights, wanted)
        for weights in bootstrap.resamples(rng, images.patients, samples)
    ])  # fmt: skip


def number(value: float) -> float | None:
    """A metric's value for JSON: None where it is undefined (NaN)."""
    return float(value) if math.isfinite(value) else None
