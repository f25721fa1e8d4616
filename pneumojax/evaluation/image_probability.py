"""From an image's score to the probability that it shows a pneumothorax (Platt scaling).

Both the slope and the intercept of the score's log-odds are fitted, on held-out patients, as the
rule is. Targets are smoothed, so that scores which separate the classes give finite numbers too.
With 8 to 134 positives this had a lower log loss than a temperature or isotonic regression
(docs/explanation/figures.md has the table).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from pneumojax.evaluation.statistics import logistic

# A lower slope would turn the ranking round. At it, scores tell nothing: all images get about the
# share of positives.
LEAST_SLOPE = 0.01


@dataclasses.dataclass(frozen=True)
class Calibration:
    """probability = expit(slope * log-odds(score) + intercept), see `logistic.log_odds`.

    Attributes:
      slope: above 0, so that probabilities rank as scores do.
      intercept: a number.
      images: how many it was fitted on.
      positives: how many of them have a pneumothorax.

    Raises:
      ValueError: a value is outside its range.
    """

    slope: float
    intercept: float
    images: int
    positives: int

    def __post_init__(self) -> None:
        # It may come from a damaged file.
        if not (0 < self.slope < 1e6 and abs(self.intercept) < 1e6):
            raise ValueError(f'expected numbers, and a slope above 0: {self}')
        if not 0 < self.positives < self.images < 1 << 40:
            raise ValueError(f'expected images with and without a pneumothorax: {self}')

    def __call__(self, score: Float[np.ndarray, '*shape']) -> Float64[np.ndarray, '*shape']:
        """Calibrated probabilities of scores in [0, 1]."""
        return logistic.expit(self.slope * logistic.log_odds(score) + self.intercept)

    @classmethod
    def from_json(cls, stated: Mapping[str, Any] | None) -> Self | None:
        """What `dataclasses.asdict` made; None of None.

        Raises:
          KeyError, TypeError, ValueError: it is something else.
        """
        if stated is None:
            return None
        return cls(*(stated[field.name] for field in dataclasses.fields(cls)))


def fit(score: Float64[np.ndarray, ' N'], positive: Bool[np.ndarray, ' N']) -> Calibration | None:
    """Platt scaling with his smoothed targets.

    Args:
      score: in [0, 1], see `metrics.image_score`.
      positive: images with pneumothorax.

    Returns:
      The calibration; None when one class is missing.

    References:
      Platt 1999, "Probabilistic outputs for support vector machines", in Advances in Large Margin
      Classifiers.
    """
    images, positives = len(positive), int(positive.sum())
    if not 0 < positives < images:
        return None
    x, once = logistic.log_odds(score), np.ones((1, images))
    target = np.where(positive, (positives + 1) / (positives + 2), 1 / (images - positives + 2))
    (slope,), (intercept,) = logistic.fit(x, target, once)
    if not slope >= LEAST_SLOPE:  # also where all scores are equal, and there is no slope
        slope = LEAST_SLOPE
        _, (intercept,) = logistic.fit(x, target, once, slope)
    return Calibration(float(slope), float(intercept), images, positives)


def cross_fit(
    score: Float64[np.ndarray, ' N'],
    positive: Bool[np.ndarray, ' N'],
    parts: Int[np.ndarray, ' N'],
) -> Float64[np.ndarray, ' N'] | None:
    """Probabilities of each part under the calibration that the other parts give.

    Args:
      score, positive: see `fit`.
      parts: as for `thresholds.cross_fit`.

    Returns:
      Probabilities; None when one class is missing among the other parts of any.
    """
    probability = np.empty(len(score))
    for part in np.unique(parts):
        here = parts == part
        calibration = fit(score[~here], positive[~here])
        if calibration is None:
            return None
        probability[here] = calibration(score[here])
    return probability
