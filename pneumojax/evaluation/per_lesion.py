"""Results per lesion and false mark. Their file is per_lesion.csv."""

import csv
import dataclasses
import io
from collections.abc import Sequence

import numpy as np

from pneumojax.system import text


@dataclasses.dataclass(frozen=True)
class PerLesion:
    """K true lesions and false marks of N images.

    Attributes:
      image: int64 [K], position of the image.
      is_true: bool [K], whether it is a true lesion; otherwise a mark without one.
      area_px: int64 [K].
      area_mm2: float64 [K], NaN where the image states no spacing.
      share: float64 [K], of the image's pixels.
      iou: float64 [K], of a lesion with its mark; NaN without one.
      confidence: float64 [K], highest probability of the mark in hundredths; NaN for a missed
        lesion.
    """

    image: np.ndarray
    is_true: np.ndarray
    area_px: np.ndarray
    area_mm2: np.ndarray
    share: np.ndarray
    iou: np.ndarray
    confidence: np.ndarray

    @property
    def found(self) -> np.ndarray:
        """bool [K]: lesions with a mark."""
        return np.isfinite(self.iou)


def to_csv(lesions: PerLesion, image_ids: Sequence[str]) -> str:
    """The content of per_lesion.csv: one row per lesion and false mark, in the order of images.

    Args:
      lesions: the results.
      image_ids: [N], of the images.
    """
    content = io.StringIO()
    writer = csv.writer(content, lineterminator='\n')
    writer.writerow(['ImageId', 'kind', 'area_px', 'area_mm2', 'found', 'iou', 'confidence'])

    def shown(value: float, form: str) -> str:
        return '' if np.isnan(value) else format(value, form)

    for k, image in enumerate(lesions.image):
        is_true = lesions.is_true[k]
        writer.writerow([
            text.cell(image_ids[image]), 'lesion' if is_true else 'false mark',
            lesions.area_px[k], shown(lesions.area_mm2[k], '.1f'),
            int(lesions.found[k]) if is_true else '', shown(lesions.iou[k], '.6f'),
            shown(lesions.confidence[k], '.2f'),
        ])  # fmt: skip
    return content.getvalue()
