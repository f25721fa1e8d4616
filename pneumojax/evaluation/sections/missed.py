"""The share of a lesion's pixels that the masks miss: what risk control bounds."""

import numpy as np

from pneumojax.evaluation.metrics import Values, Weights
from pneumojax.evaluation.per_image import PerImage
from pneumojax.evaluation.sections.section import Section


def missed(images: PerImage, weights: Weights) -> Values:
    """Mean over patients of the mean missed share over a patient's positive images.

    The pixels found follow from the Dice and both sizes. All images of a patient have one weight.
    """
    positive = images.positive
    dice, true = images.dice[positive], images.true_px[positive]
    share = 1 - dice * (images.predicted_px[positive] + true) / 2 / true
    patients = np.asarray(images.patients)[positive]
    number, count = np.unique(patients, return_inverse=True, return_counts=True)[1:]
    of_patients = weights[:, positive] / count[number]
    return of_patients @ share / of_patients.sum(axis=1)


MISSED = Section(
    key='missed',
    title='Missed share of a lesion',
    note='The share of the pixels of a true mask that are not marked, as the mean over patients '
    'with pneumothorax of the mean over their images. It is what evaluation.rule = "risk" bounds.',
    metrics={'missed_share': missed},
    names={'missed_share': 'Missed share of a lesion'},
)
