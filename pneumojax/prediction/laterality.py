"""On which side of the patient a marked area lies, or that it cannot be told."""

from typing import Literal

import numpy as np

from pneumojax.evaluation.sections.lesions import halves

Side = Literal['left', 'right', 'bilateral', 'unknown']


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
    found = halves(mask)
    if found is None:
        return 'unknown'
    if all(found):
        return 'bilateral'
    # Rows that run to the patient's left begin at the right.
    return 'right' if found[0] == (orientation[0] == 'L') else 'left'
