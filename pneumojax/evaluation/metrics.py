"""Scores of predicted masks: the competition's Dice and what it hides.

The mean Dice counts an image without pneumothorax as 1 when nothing is predicted, so

    mean = (1 - prevalence) * specificity + prevalence * (Dice on positives)

and an empty prediction everywhere already scores 0.78 on SIIM. Hence every summary has the
all-empty score and the two parts beside the mean.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from pneumojax.runs.run_files import FIGURES

SCORE_SHARE = 0.001  # of all pixels: 1,049 at 1024 x 1024, half of SIIM's q10 lesion
NAMES = FIGURES  # in this order everywhere


def dice(predicted, true) -> float:
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


def image_probability(probability) -> float:
    """Image-level score: the probability that 0.1 % of the pixels reach (at least one pixel).

    A maximum would hang on one stray pixel, a mean on the size of the lesion. This quantile asks
    whether a region as small as the smallest usual lesions is marked.

    Args:
      probability: [H, W] pixel probabilities in [0, 1].

    Returns:
      A score in [0, 1]; for AUC, not a calibrated probability of pneumothorax.
    """
    flat = np.asarray(probability).reshape(-1)
    rank = math.ceil(flat.size * SCORE_SHARE)
    return float(np.partition(flat, flat.size - rank)[flat.size - rank])


def auc(scores, positive) -> float | None:
    """Area under the ROC curve: P(positive scores higher) + P(equal) / 2 (Mann and Whitney 1947).

    Args:
      scores: [N] image-level scores, finite.
      positive: [N] bool, images with pneumothorax.

    Returns:
      A value in [0, 1]; None when one class is missing.
    """
    scores, positive = _scores(scores), np.asarray(positive, bool)
    return _number(_weighted_auc(np.ones((1, len(scores))), scores, positive)[0])


def roc(scores, positive) -> tuple[np.ndarray, np.ndarray] | None:
    """Points of the ROC curve, one per distinct score, from (0, 0) to (1, 1).

    Args:
      scores: [N] image-level scores, finite.
      positive: [N] bool, images with pneumothorax.

    Returns:
      (1 - specificity, sensitivity), each [K + 1]; None when one class is missing.
    """
    scores, positive = _scores(scores), np.asarray(positive, bool)
    if positive.all() or not positive.any():
        return None
    distinct, index = np.unique(-scores, return_inverse=True)
    hits = np.bincount(index, positive, len(distinct)).cumsum() / positive.sum()
    alarms = np.bincount(index, ~positive, len(distinct)).cumsum() / (~positive).sum()
    return np.append(0.0, alarms), np.append(0.0, hits)


def sensitivity(true_px, predicted_px) -> float | None:
    """Share of positive images with a non-empty predicted mask; None without positives."""
    found = np.asarray(predicted_px)[np.asarray(true_px) > 0] > 0
    return float(found.mean()) if found.size else None


def specificity(true_px, predicted_px) -> float | None:
    """Share of negative images with an empty predicted mask; None without negatives."""
    left_empty = np.asarray(predicted_px)[np.asarray(true_px) == 0] == 0
    return float(left_empty.mean()) if left_empty.size else None


def summarize(
    dice: Sequence[float] | np.ndarray,
    true_px: Sequence[int] | np.ndarray,
    predicted_px: Sequence[int] | np.ndarray,
    scores: Sequence[float] | np.ndarray,
    *,
    seed: int,
    patients: Sequence[str] | np.ndarray | None = None,
    samples: int = 2000,
) -> dict:
    """What `evaluation.json` holds: each figure with its 95 % percentile bootstrap interval.

    Resamples in which a figure is undefined (no positive image drawn) are left out of its interval.
    Like every percentile bootstrap, a share of exactly 0 or 1 gets an interval of width 0.

    Args:
      dice: [N] one Dice per image.
      true_px: [N] pixels in the true mask; positive means more than 0.
      predicted_px: [N] pixels in the predicted mask.
      scores: [N] image-level scores, see `image_probability`.
      seed: of the bootstrap; the same seed gives the same intervals.
      patients: [N] whose image it is; whole patients are then resampled, because images of one
        patient are not independent. Images are resampled when None.
      samples: resamples.

    Returns:
      {name: {'value', 'low', 'high'}} for each name in `NAMES`, and 'n', 'n_positive'. Undefined
      figures are None, never NaN, so the result is valid JSON.

    Raises:
      ValueError: no images, arrays of unequal length or a score that is not finite.
    """
    dice, scores = np.asarray(dice, np.float64), _scores(scores)
    true_px, predicted_px = np.asarray(true_px), np.asarray(predicted_px)
    n = len(dice)
    lengths = {len(a) for a in (true_px, predicted_px, scores)} | {
        n if patients is None else len(patients)
    }
    if lengths != {n}:
        raise ValueError(f'one value per image expected: {n} Dice, other lengths {sorted(lengths)}')

    columns = (dice, true_px > 0, predicted_px > 0, scores)
    value = figures(np.ones((1, n)), *columns)[0]
    groups = np.arange(n) if patients is None else np.unique(patients, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    drawn = np.concatenate(
        [figures(weights, *columns) for weights in resamples(rng, groups, samples)]
    )
    summary = {}
    for name, middle, column in zip(NAMES, value, drawn.T, strict=True):
        column = column[np.isfinite(column)]
        known = column.size > 0 and math.isfinite(middle)
        low, high = np.percentile(column, [2.5, 97.5]) if known else (math.nan, math.nan)
        summary[name] = {'value': _number(middle), 'low': _number(low), 'high': _number(high)}
    return summary | {'n': n, 'n_positive': int((true_px > 0).sum())}


def resamples(rng, groups, samples: int, chunk: int = 100) -> Iterator[np.ndarray]:
    """Bootstrap resamples of whole groups (patients), as weights of their images.

    Args:
      rng: numpy generator.
      groups: int [N] from 0, the group of each image.
      samples: how many.
      chunk: at once; 12,000 images would need gigabytes.

    Yields:
      float64 [<=chunk, N]: how often each image is in each resample.
    """
    count = groups.max() + 1
    for start in range(0, samples, chunk):
        rows = min(chunk, samples - start)
        drawn = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        yield times[:, groups].astype(np.float64)


def figures(weights, dice, positive, marked, scores) -> np.ndarray:
    """The figures of `NAMES` where image i counts weights[s, i] times.

    Args:
      weights: float64 [S, N].
      dice: float64 [N].
      positive: bool [N], with pneumothorax.
      marked: bool [N], with a non-empty predicted mask.
      scores: float64 [N], image-level scores.

    Returns:
      float64 [S, 6]; NaN where a figure is undefined.
    """
    n, n_positive = weights.sum(axis=1), weights @ positive
    with np.errstate(invalid='ignore'):  # 0 / 0 is the undefined figure, NaN until it is None
        return np.stack(
            [
                weights @ dice / n,
                weights @ ~positive / n,
                weights @ (dice * positive) / n_positive,
                weights @ (positive & marked) / n_positive,
                weights @ ~(positive | marked) / (n - n_positive),
                _weighted_auc(weights, scores, positive),
            ],
            axis=1,
        )


def _weighted_auc(weights, scores, positive):
    """[S] AUC where image i counts weights[s, i] times; NaN when a class has no weight."""
    order = np.argsort(scores, kind='stable')
    ranked = scores[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))  # of each tied block
    positives = np.add.reduceat((weights * positive)[:, order], starts, axis=1)
    negatives = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    lower = negatives.cumsum(axis=1) - negatives / 2  # ties count half
    with np.errstate(invalid='ignore'):
        return (positives * lower).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1))


def _scores(scores):
    scores = np.asarray(scores, np.float64)
    if scores.size == 0 or not np.isfinite(scores).all():
        raise ValueError('image-level scores must be finite and at least one')
    return scores


def _number(value):
    return float(value) if math.isfinite(value) else None
