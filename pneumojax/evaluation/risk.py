"""The highest threshold that misses little of the lesions, with a guarantee: risk control.

The loss of a threshold on one patient is the share of a lesion's pixels below it, averaged over
that patient's images with pneumothorax. Patients are exchangeable, images of one patient are not.
The loss never falls as the threshold rises, so whether its mean is too high is tested from the
lowest threshold upwards, and the last one that passes is taken. Learn then Test (Angelopoulos et
al. 2021) and risk-controlling prediction sets (Bates et al. 2021) then guarantee:

    with a probability of at least `CONFIDENCE` over the patients chosen on, the mean loss on
    further patients with pneumothorax from the same source is at most `miss`.

Conformal risk control (Angelopoulos et al. 2022) is less strict, but promises only that the mean
over many such choices is at most `miss`: a single choice may be above it almost half of the time.
"""

from typing import Any

import numpy as np
from jaxtyping import Float64, Int
from scipy import special

from pneumojax.errors import UsageError
from pneumojax.evaluation.counts import PixelCounts
from pneumojax.evaluation.rules import Rule, bin_of

CONFIDENCE = 0.95
THRESHOLDS = tuple(k / 100 for k in range(5, 100))  # rising


def losses(counts: PixelCounts, patients: Int[np.ndarray, ' N']) -> Float64[np.ndarray, 'P T']:
    """Mean share of the lesion that each of `THRESHOLDS` misses, for P patients with one.

    Args:
      counts: N images; those without a lesion do not count.
      patients: the patient of each.
    """
    positive = counts.true_px > 0
    inside = counts.histograms[positive, 1].astype(np.float64)
    below = np.concatenate([np.zeros((len(inside), 1)), inside.cumsum(axis=1)], axis=1)
    share = below[:, [bin_of(t) for t in THRESHOLDS]] / inside.sum(axis=1, keepdims=True)
    number, images = np.unique(patients[positive], return_inverse=True, return_counts=True)[1:]
    total = np.zeros((len(images), len(THRESHOLDS)))
    np.add.at(total, number, share)
    return total / images[:, None]


def p_value(mean: float, n: int, miss: float) -> float:
    """Of n losses in [0, 1] having a mean this low, if their expectation is above `miss`.

    The Hoeffding-Bentkus inequality. It rises with `mean` and falls with `miss`.

    Args:
      mean: of the n losses.
      n: independent losses.
      miss: in (0, 1).

    References:
      Bates et al. 2021, "Distribution-free, risk-controlling prediction sets", Journal of the ACM
      68, section 3.1.
    """
    low = min(mean, miss)
    divergence = special.rel_entr(low, miss) + special.rel_entr(1 - low, 1 - miss)
    # A rounding error must not make the whole number above n * mean one larger.
    bentkus = np.e * special.bdtr(np.ceil(n * mean - 1e-9), n, miss)
    return float(min(1, np.exp(-n * divergence), bentkus))


def bound(mean: float, n: int) -> float:
    """The smallest `miss`, in steps of 0.001, that n losses of this mean guarantee; 1 if none."""
    # Both bounds fall as `miss` rises, so half of the rest can be left out at each step.
    low, high = 0, 1000
    while high - low > 1:
        middle = (low + high) // 2
        passes = p_value(mean, n, middle / 1000) <= 1 - CONFIDENCE
        low, high = (low, middle) if passes else (middle, high)
    return high / 1000


def search(counts: PixelCounts, miss: float) -> Rule:
    """The rule that marks every pixel from the highest threshold with the guarantee.

    Args:
      counts: validation images, with `patients`.
      miss: in (0, 1), the largest mean share of a lesion that may be missed.

    Raises:
      UsageError: not even the lowest threshold has it.
    """
    assert counts.patients is not None, 'risk control needs `patients`'
    found = losses(counts, counts.patients)
    n, means = len(found), found.mean(axis=0) if len(found) else np.ones(len(THRESHOLDS))
    passing = [mean for mean in means if p_value(mean, n, miss) <= 1 - CONFIDENCE] if n else []
    if not passing:
        smallest = bound(means[0], n) if n else 1
        advice = f'set it to {smallest:g} or more' if smallest < 1 else 'no value below 1 can be'
        raise UsageError(
            f'config.evaluation.miss is {miss:g}, which {n} patients with a lesion to choose the '
            f'threshold on cannot guarantee: {THRESHOLDS[0]:g}, the lowest, misses '
            f'{means[0]:.1%} of a lesion on average; {advice}, use more images with a '
            "pneumothorax, or another evaluation.rule, such as 'single'"
        )
    threshold = THRESHOLDS[len(passing) - 1]
    return Rule(top=threshold, area=0, bottom=threshold)


def guarantee(counts: PixelCounts, rule: Rule, miss: float) -> dict[str, Any]:
    """What thresholds.json states of a rule that `search` found on these images.

    Returns:
      'miss' and 'confidence' of the guarantee, and the 'patients' with a lesion and the
      'calibrated_miss', their mean loss, that it rests on.
    """
    assert counts.patients is not None, 'risk control needs `patients`'
    found = losses(counts, counts.patients)[:, THRESHOLDS.index(rule.top)]
    return {
        'miss': miss,
        'confidence': CONFIDENCE,
        'patients': len(found),
        'calibrated_miss': float(found.mean()),
    }
