"""On which side of the patient a marked area lies, or that it cannot be told."""

from typing import Literal

import cv2
import numpy as np

Side = Literal['left', 'right', 'bilateral', 'unknown']

_MIDDLE = 0.1  # share of the width around the midline, which is seldom the patient's exactly


def side(mask: np.ndarray, orientation: list[str] | str) -> Side:
    """The side of the patient, not of the picture.

    A radiograph may be hung or mirrored in any way, so the side follows from PatientOrientation
    alone. It is unknown without it, in views that are not frontal, and where an area reaches the
    tenth of the width around the middle of the image.

    Args:
      mask: uint8 [H, W], nonzero where marked.
      orientation: the directions of rows and of columns, as `reference.orientation` gives them.
    """
    if (
        len(orientation) != 2
        or orientation[0] not in ('L', 'R')
        or orientation[1] not in ('F', 'H')
    ):
        return 'unknown'
    width = mask.shape[1]
    low, high = width * (1 - _MIDDLE) / 2, width * (1 + _MIDDLE) / 2
    count, _, boxes, _ = cv2.connectedComponentsWithStats((mask != 0).astype(np.uint8))
    found: set[Side] = set()
    for x, _, box_width, _, _ in boxes[1:count]:
        if x < high and x + box_width > low:
            return 'unknown'
        in_first_half = x + box_width <= low
        # Rows that run to the patient's left begin at the right.
        found.add('right' if in_first_half == (orientation[0] == 'L') else 'left')
    if not found:
        return 'unknown'
    return found.pop() if len(found) == 1 else 'bilateral'
