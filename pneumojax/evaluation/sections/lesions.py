"""Lesions one by one: found or missed, false marks, and the half of the picture they lie in.

A lesion is a connected region of the true mask, a mark one of the predicted mask (8 neighbours).
Pairs with an IoU of at least `LEAST_IOU` are matched one to one, the highest IoU first (the naive
matching of panoptica, arXiv 2312.02608, at another threshold). The threshold is low because most
pneumothoraces are thin: a mark that is right but one millimetre off has a small IoU.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np

from pneumojax.evaluation import levels, rules
from pneumojax.evaluation.metrics import Values, Weights, number, of_positives
from pneumojax.evaluation.per_image import PerImage
from pneumojax.evaluation.per_lesion import PerLesion
from pneumojax.evaluation.sections.section import Measured, Section
from pneumojax.evaluation.statistics import bootstrap

LEAST_IOU = 0.1
FALSE_MARKS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)  # an image, where the FROC curve is read
SIZES = {'small': (0.0, 0.0025), 'medium': (0.0025, 0.01), 'large': (0.01, np.inf)}  # of the image
_MIDDLE = 0.1  # share of the width around the midline, which is seldom the patient's exactly


class Lesion(NamedTuple):
    """A true lesion, or a mark without one."""

    is_true: bool
    area_px: int
    share: float  # of the image
    iou: float  # with its mark; NaN where there is none
    confidence: float  # of the mark, its highest probability in hundredths; NaN without a mark


def match(predicted: np.ndarray, true: np.ndarray, level: np.ndarray) -> list[Lesion]:
    """All lesions of one image, then its false marks.

    Args:
      predicted, true: uint8 0/1 [H, W].
      level: uint8 [H, W], see `levels.of`: a mark is as confident as its highest level.
    """
    size = true.size
    if not (predicted.any() or true.any()):
        return []
    x, y, width, height = cv2.boundingRect(predicted | true)
    crop = slice(y, y + height), slice(x, x + width)
    predicted, true, level = predicted[crop], true[crop], level[crop]
    lesions, sizes = rules.connected_regions(true)
    marks, mark_sizes = rules.connected_regions(predicted)
    pixels = np.flatnonzero(predicted)
    highest = np.zeros(len(mark_sizes), np.uint8)
    np.maximum.at(highest, marks.ravel()[pixels], level.ravel()[pixels])
    shared = np.zeros((len(sizes), len(mark_sizes)), np.int64)
    np.add.at(shared, (lesions.ravel()[pixels], marks.ravel()[pixels]), 1)
    # Without any background, that of both has no pixels.
    iou = shared / np.maximum(sizes[:, None] + mark_sizes - shared, 1)
    iou[0], iou[:, 0] = 0, 0  # the background
    of_lesion: dict[int, int] = {}
    for flat in np.argsort(-iou, axis=None, kind='stable'):
        lesion, mark = divmod(int(flat), len(mark_sizes))
        if iou[lesion, mark] < LEAST_IOU:
            break
        if lesion not in of_lesion and mark not in of_lesion.values():
            of_lesion[lesion] = mark
    found = []
    for lesion in range(1, len(sizes)):
        mark = of_lesion.get(lesion, 0)
        found.append(Lesion(
            True, int(sizes[lesion]), sizes[lesion] / size,
            iou[lesion, mark] if mark else np.nan,
            highest[mark] / levels.STEPS if mark else np.nan,
        ))  # fmt: skip
    for mark in sorted(set(range(1, len(mark_sizes))) - set(of_lesion.values())):
        area = int(mark_sizes[mark])
        found.append(Lesion(False, area, area / size, np.nan, highest[mark] / levels.STEPS))
    return found


def same_half(predicted: np.ndarray, true: np.ndarray) -> float:
    """1 where both masks lie in the same half of the picture (or both in both halves), else 0.

    NaN where a mask is empty or reaches the tenth of the width around the middle.
    """
    sides = [halves(mask) for mask in (predicted, true)]
    return np.nan if None in sides else float(sides[0] == sides[1])


def halves(mask: np.ndarray) -> tuple[bool, bool] | None:
    """Whether anything is marked in the left and in the right half of the picture.

    Args:
      mask: [H, W], nonzero where marked.

    Returns:
      None where nothing is, or where a mark reaches the tenth of the width around the middle.
    """
    columns = np.atleast_1d(mask.any(axis=0))
    width = len(columns)
    low, high = int(width * (1 - _MIDDLE) / 2), int(np.ceil(width * (1 + _MIDDLE) / 2))
    if not columns.any() or columns[low:high].any():
        return None
    return bool(columns[:low].any()), bool(columns[high:].any())


# --- figures ------------------------------------------------------------------------------------


def detection(images: PerImage, weights: Weights) -> Values:
    """Share of true lesions that a mark is matched to."""
    return weights @ images.lesions_found / (weights @ images.lesions)


def precision(images: PerImage, weights: Weights) -> Values:
    """Share of marks that are matched to a lesion."""
    found = weights @ images.lesions_found
    return found / (found + weights @ images.false_marks)


def lesion_f1(images: PerImage, weights: Weights) -> Values:
    """Harmonic mean of `detection` and `precision`."""
    found = weights @ images.lesions_found
    return 2 * found / (found + weights @ images.lesions + weights @ images.false_marks)


def false_marks(images: PerImage, weights: Weights) -> Values:
    """Marks without a lesion, an image."""
    return weights @ images.false_marks / weights.sum(axis=1)


def right_half(images: PerImage, weights: Weights) -> Values:
    """Share of images whose marks lie in the half of the picture that the lesions lie in."""
    assert images.same_half is not None
    known = np.isfinite(images.same_half)
    return weights[:, known] @ images.same_half[known] / weights[:, known].sum(axis=1)


def froc(lesions: PerLesion, count: int, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """The FROC curve of each sample.

    Args:
      lesions: of `count` images.
      count: N.
      weights: of the images in each sample.

    Returns:
      (false marks an image, share of lesions found), float64 [S, STEPS + 1] each: of marks with at
      least a confidence of 1, 0.99, ... 0.
    """
    step = np.round(np.nan_to_num(lesions.confidence) * levels.STEPS).astype(np.int64)

    def counts(chosen: np.ndarray) -> np.ndarray:
        table = np.zeros((count, levels.STEPS + 1))
        np.add.at(table, (lesions.image[chosen], levels.STEPS - step[chosen]), 1)
        return (weights @ table).cumsum(axis=1)

    total = weights @ np.bincount(lesions.image[lesions.is_true], minlength=count)
    hits, alarms = counts(lesions.is_true & lesions.found), counts(~lesions.is_true)
    return alarms / weights.sum(axis=1)[:, None], hits / total[:, None]


def _details(measured: Measured, *, seed: int, samples: int) -> dict[str, Any]:
    images, lesions = measured.images, measured.lesions
    if lesions is None or images.same_half is None:  # a table of somebody else
        return {}
    whole = np.ones((1, len(images)))
    draws = list(bootstrap.resamples(np.random.default_rng(seed), images.patients, samples))

    def with_interval(metric: Any) -> dict[str, float | None]:
        with np.errstate(invalid='ignore', divide='ignore'):
            value = metric(whole)[0]
            low, high = bootstrap.interval(value, np.concatenate([metric(w) for w in draws]))
        return {'value': number(value), 'low': low, 'high': high}

    by_size = {}
    for name, (least, most) in SIZES.items():
        here = lesions.is_true & (lesions.share >= least) & (lesions.share < most)
        total, hits = (
            np.bincount(lesions.image[chosen], minlength=len(images))
            for chosen in (here, here & lesions.found)
        )
        share = with_interval(lambda w, hits=hits, total=total: (w @ hits) / (w @ total))
        by_size[name] = {
            'least_share': least, 'n': int(here.sum()), 'found': int((here & lesions.found).sum()),
            **share,
        }  # fmt: skip

    def read(weights: Weights) -> np.ndarray:
        alarms, hits = froc(lesions, len(images), weights)
        at = [np.where(alarms <= rate, hits, 0).max(axis=1) for rate in FALSE_MARKS]
        return np.stack(at, axis=1)

    points = []
    with np.errstate(invalid='ignore', divide='ignore'):
        drawn = np.concatenate([read(weights) for weights in draws])
        for rate, value, column in zip(FALSE_MARKS, read(whole)[0], drawn.T, strict=True):
            low, high = bootstrap.interval(value, column)
            points.append({'false_marks': rate, 'value': number(value), 'low': low, 'high': high})
    alarms, hits = froc(lesions, len(images), whole)
    return {
        'least_iou': LEAST_IOU,
        'n_lesions': int(lesions.is_true.sum()),
        'n_false_marks': int((~lesions.is_true).sum()),
        'n_same_half_known': int(np.isfinite(images.same_half).sum()),
        'by_size': by_size,
        'froc': {
            'false_marks': alarms[0].tolist(),
            'detection': [number(value) for value in hits[0]],
            'at': points,
        },
    }  # fmt: skip


LESIONS = Section(
    key='lesions',
    title='Lesions',
    note='A lesion is a connected region of the true mask, a mark one of the predicted mask. They '
    'are matched one to one where their intersection over union is at least 0.1, the highest '
    'first. The FROC curve takes the marks that the rule makes, by falling confidence (their '
    'highest probability). The half of the picture is told where no mask reaches the tenth of the '
    'width around the middle.',
    metrics={
        'detection': of_positives(detection), 'precision': precision, 'f1': lesion_f1,
        'false_marks': false_marks, 'same_half': right_half,
    },
    names={
        'detection': 'Lesions found', 'precision': 'Marks that are of a lesion',
        'f1': 'F1 of lesions', 'false_marks': 'False marks an image',
        'same_half': 'Marked in the right half of the picture',
    },
    needs=('lesions', 'lesions_found', 'false_marks', 'same_half'),
    details=_details,
)  # fmt: skip
