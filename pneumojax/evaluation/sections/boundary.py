"""How near the outlines of predicted and true masks are: surface Dice, HD95, boundary IoU.

An outline is a chain of surface elements between pixels, one for each square of 2 x 2 pixels that
is neither empty nor full, with the length that marching squares gives it:

    one or three of the four pixels inside    half a diagonal
    two in a row, or in a column              one pixel's width, or height
    two at opposite corners                   a diagonal

The distance of an element is that to the nearest element of the other outline. This is the
definition of DeepMind's `surface-distance`; other tools count border pixels, or measure without
lengths or spacing, and differ.

References:
  Nikolov et al. 2018, arXiv 1809.04430 (surface Dice at a tolerance).
  Cheng et al. 2021, "Boundary IoU", CVPR.
"""

import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from scipy import ndimage

from pneumojax.evaluation.metrics import Metric, Values, Weights
from pneumojax.evaluation.per_image import PerImage
from pneumojax.evaluation.sections.section import Measured, Section

TOLERANCES = {'mm': (2.0, 5.0), 'px': (10.0, 25.0)}  # narrow, wide
BAND = 0.02  # of the image's diagonal: the width of the band that boundary IoU compares


class Boundary(NamedTuple):
    """Figures of one image with a true lesion. NaN where undefined."""

    surface_dice_narrow: float
    surface_dice_wide: float
    hd95: float  # in the unit of the spacing; undefined where nothing is marked
    boundary_iou: float


UNDEFINED = Boundary(math.nan, math.nan, math.nan, math.nan)


def compare(
    predicted: np.ndarray,
    true: np.ndarray,
    spacing: tuple[float, float] = (1.0, 1.0),
    tolerances: tuple[float, float] = TOLERANCES['px'],
) -> Boundary:
    """Compares the outlines of two masks.

    Args:
      predicted, true: uint8 [H, W], nonzero inside. Both empty: all is NaN. One empty: HD95 is
        NaN, the rest 0.
      spacing: between rows and between columns, in mm or (1, 1) in pixels.
      tolerances: narrow and wide, in the same unit.
    """
    predicted, true = (predicted != 0).astype(np.uint8), (true != 0).astype(np.uint8)
    if not true.any() or not predicted.any():
        share = 0.0 if true.any() or predicted.any() else math.nan
        return Boundary(share, share, math.nan, share)
    width = max(1, round(BAND * math.hypot(*true.shape)))
    # Nothing is inside beyond this box, as nothing is beyond the image.
    crop = cv2.boundingRect(predicted | true)
    predicted, true = (
        mask[crop[1] : crop[1] + crop[3], crop[0] : crop[0] + crop[2]] for mask in (predicted, true)
    )
    bands = _band(predicted, width), _band(true, width)
    boundary_iou = np.count_nonzero(bands[0] & bands[1]) / np.count_nonzero(bands[0] | bands[1])
    lengths = [_lengths(np.pad(mask, 1), spacing) for mask in (predicted, true)]
    sides = []
    for own, other in (lengths, lengths[::-1]):
        outline = own > 0
        sides.append((_distance_to(other > 0, spacing)[outline], own[outline]))
    total = sum(length.sum() for _, length in sides)
    near = [
        sum(length[distance <= tolerance].sum() for distance, length in sides) / total
        for tolerance in tolerances
    ]
    hd95 = max(_quantile(distance, length, 0.95) for distance, length in sides)
    return Boundary(near[0], near[1], hd95, boundary_iou)


def _lengths(mask: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """float64 [H - 1, W - 1]: length of the surface element between each 2 x 2 pixels."""
    a, b, c, d = mask[:-1, :-1], mask[:-1, 1:], mask[1:, :-1], mask[1:, 1:]
    height, width = spacing
    half = math.hypot(height, width) / 2
    # By the number of pixels inside, 0 to 4; pairs in a row or column are put right below.
    lengths = np.array([0, half, 2 * half, half, 0])[a + b + c + d]
    lengths[(a == b) & (c == d) & (a != c)] = width
    lengths[(a == c) & (b == d) & (a != b)] = height
    return lengths


def _distance_to(points: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """float64 [H, W]: distance from every element to the nearest of `points`."""
    height, width = spacing
    if height == width:  # fifteen times as fast
        elsewhere = (~points).astype(np.uint8)
        return cv2.distanceTransform(elsewhere, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * float(height)
    return ndimage.distance_transform_edt(~points, sampling=spacing)


def _quantile(distance: np.ndarray, length: np.ndarray, share: float) -> float:
    """The distance within which a share of the outline's length lies."""
    order = np.argsort(distance, kind='stable')
    reached = np.cumsum(length[order]) / length.sum()
    # An outline may reach the share exactly; rounding in the sum does not decide about that.
    position = min(int(np.searchsorted(reached, share - 1e-9)), len(order) - 1)
    return float(distance[order][position])


def _band(mask: np.ndarray, width: int) -> np.ndarray:
    """bool [H, W]: pixels inside that are up to `width` rows or columns from the outside."""
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    inner = cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
    return (mask != 0) & (inner == 0)


def _mean(name: str) -> Metric:
    def metric(images: PerImage, weights: Weights) -> Values:
        column = getattr(images, name)
        known = np.isfinite(column)
        return weights[:, known] @ column[known] / weights[:, known].sum(axis=1)

    return metric


def median_hd95(images: PerImage, weights: Weights) -> Values:
    """Median HD95 of the images with a true lesion and a mark; their mean would hang on a few."""
    assert images.hd95 is not None
    known = np.flatnonzero(np.isfinite(images.hd95))
    if not len(known):
        return np.full(len(weights), np.nan)
    order = known[np.argsort(images.hd95[known], kind='stable')]
    reached = weights[:, order].cumsum(axis=1)
    middle = np.argmax(reached >= reached[:, -1:] / 2, axis=1)
    return np.where(reached[:, -1] > 0, images.hd95[order][middle], np.nan)


def _details(measured: Measured, *, seed: int, samples: int) -> dict[str, Any]:
    del seed, samples
    images, unit = measured.images, measured.unit
    assert images.hd95 is not None
    narrow, wide = TOLERANCES[unit]
    return {
        'unit': unit,
        'tolerances': {'surface_dice_narrow': narrow, 'surface_dice_wide': wide},
        'n': int(images.positive.sum()),
        'n_without_hd95': int((images.positive & ~np.isfinite(images.hd95)).sum()),
    }


BOUNDARY = Section(
    key='boundary',
    title='Outlines',
    note='Of the images with pneumothorax; where nothing is marked on one, surface Dice and '
    'boundary IoU are 0 and HD95 is undefined and left out. Surface Dice: the share of both '
    'outlines, by length, that is within 2 mm (narrow) or 5 mm (wide) of the other. '
    'HD95: the distance within which 95 % of each outline is of the other, the larger of both '
    'directions. All in mm where every one of these images states its pixel spacing; otherwise in '
    'pixels of the original, with tolerances of 10 and 25. Boundary IoU: intersection over union '
    'of the bands inside the outlines, 2 % of the diagonal wide.',
    metrics={
        'surface_dice_narrow': _mean('surface_dice_narrow'),
        'surface_dice_wide': _mean('surface_dice_wide'),
        'hd95': median_hd95,
        'boundary_iou': _mean('boundary_iou'),
    },
    names={
        'surface_dice_narrow': 'Surface Dice, narrow tolerance',
        'surface_dice_wide': 'Surface Dice, wide tolerance',
        'hd95': 'HD95, median',
        'boundary_iou': 'Boundary IoU',
    },
    needs=Boundary._fields,
    details=_details,
)
