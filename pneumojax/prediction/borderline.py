"""Finds borderline images, whose masks are sensitive to the rounding of bfloat16.

Rounding shifts logits a little, which moves the outline of a lesion by a fraction of a pixel:
nobody would notice. It matters where a small shift makes a large difference: for a lesion about as
large as the smallest that counts, and for regions of a few pixels. Such images are few, and are
predicted again in float32.
"""

import dataclasses
import math

import numpy as np

from pneumojax.evaluation import metrics, rules
from pneumojax.evaluation.rules import BINS, Rule

# Not the largest error that occurs. It was enough for a mean Dice of 0.999 with float32's masks,
# and for marking the same images, with a sharp network on phantoms and a vague one on SIIM: see
# benchmarks/README.md.
LOGIT_ERROR = 0.05
LEAST_DICE = 0.95  # of the masks at both ends of the error


def is_borderline(rule: Rule, probability: np.ndarray) -> bool:
    """Whether the mask would change noticeably if all logits were a little higher or lower.

    Args:
      rule: makes the mask.
      probability: float32 [H, W] in [0, 1], at the original size.

    Returns:
      True if shifting all logits by `LOGIT_ERROR`, up and down, gives masks whose Dice is below
      `LEAST_DICE`; so always if one of them is empty and the other is not.
    """
    if probability.max() < _shift(rule.top, -LOGIT_ERROR):
        return False  # most images: nothing is marked, or close to it
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
    """The threshold whose logit is higher by `error`, rounded to one that a rule may have."""
    logit = math.log(threshold / (1 - threshold)) + error
    return min(max(round(BINS / (1 + math.exp(-logit))), 1), BINS - 1) / BINS
