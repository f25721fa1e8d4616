"""Tables of results per image, made from bare columns."""

import numpy as np

from pneumojax.evaluation.per_image import PerImage


def table(dice, true_px, predicted_px, score, patients=None):
    """A `PerImage` of N images; each is a patient of its own where none are given."""
    ids = [f'image {i:05}' for i in range(len(dice))]
    columns = map(np.asarray, (dice, true_px, predicted_px, score))
    return PerImage(ids, ids if patients is None else patients, *columns)
