"""Whether an image looks like a frontal chest radiograph: a few numbers, each within its bounds.

There is no network, and images are compared with the mean of drawn phantoms, not of patients. It
tells what is turned, inverted, blank, blurred, saturated, a screenshot or another part of the body,
and not whether a radiograph is a good one. `benchmarks/plausibility.py` measures it.
"""

from typing import NamedTuple

import cv2
import numpy as np

NOTE = 'the picture does not look like a frontal chest radiograph'
SIDE = 256  # pixels, to which images are scaled; smaller ones are not judged
# Ranks of the grey levels of the mean phantom, 0 (darkest) to z; made by the benchmark.
TEMPLATE = """
100002grqb110000
112235lxvj432221
27fhfamxuieghc51
5lph85gwsc49lqk4
doma33busc43eppe
gpj635btxh538mpf
gnh647ewwi647jof
emf54aixyqc66hnd
bld78dlzyti86elb
9kc89aozyuqd7ck9
9kbaaaqzxtti8dj7
8kfhjirzytvnbej6
9mkqsrtzyvwrjgi7
dqrwxwvzyuvvsok9
grvxwuuzytssusnc
flppooorrnnnmmi9
"""


class Bounds(NamedTuple):
    """What a feature may be; `typical` is the median of radiographs, which scales the margins."""

    low: float
    typical: float
    high: float


# `typical` is the median of SIIM's radiographs. Of 492 of them, on which the bounds were set, 3 are
# outside; of the other 492, too.
BOUNDS = {
    'pattern': Bounds(0.25, 1.6, 3.0),
    'repeat': Bounds(-1.5, 0.0, 0.95),
    'detail': Bounds(-4.2, -3.1, -2.0),
    'spectrum': Bounds(-1.35, -0.8, -0.1),
    'contrast': Bounds(22.0, 60.0, 130.0),
    'mode': Bounds(-1.0, 0.03, 0.6),
    'flat': Bounds(-1.0, 0.03, 0.7),
}


def note(image: np.ndarray) -> str | None:
    """`NOTE` if the image does not look like a frontal chest radiograph, else None.

    Args:
      image: uint8 [H, W], MONOCHROME2 sense.
    """
    return NOTE if min(image.shape) >= SIDE and margin(features(image)) < 0 else None


def margin(found: dict[str, float]) -> float:
    """How far the features are within their bounds: 1 if typical, below 0 if one is outside."""
    return min(
        min((found[name] - low) / (typical - low), (high - found[name]) / (high - typical))
        for name, (low, typical, high) in BOUNDS.items()
    )


def features(image: np.ndarray) -> dict[str, float]:
    """The numbers that `BOUNDS` is about.

    Args:
      image: uint8 [H, W].

    Returns:
      pattern: likeness to the template, upright rather than turned, and symmetry.
      repeat: likeness of the left half to the right one, not mirrored.
      detail: logarithm of the finest detail over the contrast: low if blurred, high if noisy.
      spectrum: logarithm of the finest detail over the next coarser one.
      contrast: standard deviation in grey levels.
      mode: share of the most frequent grey level.
      flat: share of pixels like all of their neighbours.
    """
    grey = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    template, small = _template(), ranks(grey)
    likeness = _correlation(small, template)
    turned = max(_correlation(small, np.rot90(template, quarter)) for quarter in (1, 2, 3))
    half = small.shape[1] // 2
    fine = cv2.GaussianBlur(grey, (0, 0), 1.5)
    finest = np.abs(grey - fine).mean()
    coarser = np.abs(fine - cv2.GaussianBlur(grey, (0, 0), 6)).mean()
    contrast = float(grey.std())
    kernel = np.ones((3, 3), np.uint8)
    spread = cv2.dilate(grey, kernel) - cv2.erode(grey, kernel)
    return {
        'pattern': 2 * likeness - turned + _correlation(small, small[:, ::-1]) / 2,
        'repeat': _correlation(small[:, :half], small[:, half:]),
        'detail': float(np.log((finest + 0.02) / (contrast + 0.5))),
        'spectrum': float(np.log((finest + 0.02) / (coarser + 0.02))),
        'contrast': contrast,
        'mode': float(np.bincount(grey.round().astype(np.uint8).ravel()).max() / grey.size),
        'flat': float((spread < 0.5).mean()),
    }


def ranks(grey: np.ndarray) -> np.ndarray:
    """Ranks of the grey levels of the image at 16 x 16, equal ones averaged: contrast is no matter.

    Args:
      grey: float32 [H, W].
    """
    small = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA).round(1)
    ordered = np.sort(small, axis=None)
    return (np.searchsorted(ordered, small) + np.searchsorted(ordered, small, 'right')) / 2


def _template() -> np.ndarray:
    return np.array([[int(digit, 36) for digit in row] for row in TEMPLATE.split()], np.float64)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's; 0 where one of them is constant."""
    one, other = one - one.mean(), other - other.mean()
    scale = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / scale) if scale > 0 else 0.0
