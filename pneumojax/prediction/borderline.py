"""Finds borderline images, whose masks are sensitive to the rounding of bfloat16.

Rounding shifts logits a little, which moves the outline of a lesion by a fraction of a pixel:
nobody would notice. It matters where a small shift makes a large difference: for a lesion about as
large as the smallest that counts, and for regions of a few pixels. Such images are few, and are
predicted again in float32.
"""

import math

import numpy as np

from pneumojax.evaluation import metrics, rules
from pneumojax.evaluation.rules import Rule

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
        rules.mask(
            rule, probability >= _shift(rule.top, error), probability >= _shift(rule.bottom, error)
        )
        for error in (-LOGIT_ERROR, LOGIT_ERROR)
    )
    return bool(metrics.dice(smaller, larger) < LEAST_DICE)


def _shift(threshold: float, error: float) -> np.float32:
    """The threshold whose logit is higher by `error`.

    It is no multiple of 0.001, as those of a rule are: near 0 and 1 such steps exceed the error.
    """
    odds = math.exp(error)
    return np.float32(threshold * odds / (1 + threshold * (odds - 1)))
