"""Whether a mask hangs on the rounding of bfloat16.

Rounding moves logits a little, and the outline of a lesion with them by a fraction of a pixel: no
one would see it. It is seen where a small change becomes a large one: a lesion that is just as
large as the smallest that counts, and regions of a few pixels. Such images are few, and are
predicted again in float32.
"""

import dataclasses
import math

import numpy as np

from pneumojax.evaluation import metrics, rules
from pneumojax.evaluation.rules import BINS, Rule

# Not the largest error there is, but what was enough for a mean Dice of 0.999 with float32, and the
# same images marked, by a sharp network on phantoms and a vague one on SIIM: benchmarks/README.md.
LOGIT_ERROR = 0.05
LEAST_DICE = 0.95  # of the masks at both ends of the error


def hangs_on_rounding(rule: Rule, probability: np.ndarray) -> bool:
    """Whether the mask would be another one if all logits were a little higher or lower.

    Args:
      rule: makes the mask.
      probability: float32 [H, W] in [0, 1], at the original size.

    Returns:
      True where a shift of all logits by `LOGIT_ERROR`, up and down, makes masks whose Dice is
      below `LEAST_DICE`; so always where one of them is empty and the other is not.
    """
    if probability.max() < _shift(rule.top, -LOGIT_ERROR):
        return False  # most images: nothing is marked, and far from it
    larger, smaller = (
        rules.apply(
            dataclasses.replace(
                rule, top=_shift(rule.top, error), bottom=_shift(rule.bottom, error)
            ),
            probability,
        )
        for error in (-LOGIT_ERROR, LOGIT_ERROR)
    )
    return bool(metrics.dice(smaller, larger) < LEAST_DICE)


def _shift(threshold: float, error: float) -> float:
    """The threshold whose logit is higher by `error`, among those that a rule may have."""
    logit = math.log(threshold / (1 - threshold)) + error
    return min(max(round(BINS / (1 + math.exp(-logit))), 1), BINS - 1) / BINS
