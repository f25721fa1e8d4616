"""Folds that keep the images of a patient together and have equal shares of positives.

SIIM's 12,047 images show 6,171 people: a split by image would put the same chest on both sides.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from pneumojax.data.datasets.example import Example
from pneumojax.errors import UsageError


def assign_folds(
    positive: Sequence[bool] | np.ndarray, patients: Sequence[str], num_folds: int, seed: int
) -> np.ndarray:
    """Deals patients to folds so that images and positives are spread evenly.

    Patients with the most positives, then with the most images, are dealt first, each to the fold
    where both counts so far are proportionally lowest. Ties are ordered by a seeded hash of the
    patient's id, so the order of the images has no influence.

    Args:
      positive: [n], whether an image has a mask.
      patients: [n], whom it shows.
      num_folds: from 2 to the number of patients.
      seed: selects one of many such assignments.

    Returns:
      int64 [n], the fold of each image, 0 to num_folds - 1; no fold is empty.

    Raises:
      UsageError: `num_folds` is out of range.
    """
    if len(positive) != len(patients):
        raise ValueError(f'{len(positive)} labels for {len(patients)} patients')
    counts: dict[str, list[int]] = {}
    for is_positive, patient in zip(positive, patients, strict=True):
        count = counts.setdefault(patient, [0, 0])
        count[0] += bool(is_positive)
        count[1] += 1
    if num_folds < 2:
        raise UsageError(f'config.data.num_folds is {num_folds}; expected at least 2')
    if num_folds > len(counts):
        raise UsageError(
            f'config.data.num_folds is {num_folds}, but there are only {len(counts)} patients; '
            'lower it or add images'
        )
    order = sorted(
        counts, key=lambda name: (-counts[name][0], -counts[name][1], _hash(seed, name), name)
    )
    total_positives, total_images = sum(count[0] for count in counts.values()), len(patients)
    positives, images = [0] * num_folds, [0] * num_folds
    fold_of = {}
    for patient in order:
        own_positives, own_images = counts[patient]
        # How much the patient raises the sum of squared shares, in integers so that ties are exact.
        costs = [
            positives[fold] * own_positives * total_images**2
            + images[fold] * own_images * total_positives**2
            if total_positives
            else images[fold]
            for fold in range(num_folds)
        ]
        fold = costs.index(min(costs))
        positives[fold] += own_positives
        images[fold] += own_images
        fold_of[patient] = fold
    return np.array([fold_of[patient] for patient in patients], np.int64)


def split(
    examples: Sequence[Example], fold: int, num_folds: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Holds one fold out, unless the examples have a `side`, which then decides.

    Args:
      examples: all images; either all or none of them have a `side`.
      fold: the one held out, 0 to num_folds - 1.
      num_folds: from 2 to the number of patients.
      seed: selects the assignment of patients to folds.

    Returns:
      Sorted positions in `examples`, int64: the ones to train on and the ones to validate on.

    Raises:
      UsageError: `fold` or `num_folds` is out of range.
    """
    patients = [example.patient_id for example in examples]
    if any(example.side for example in examples):
        return _stated(examples)
    folds = assign_folds([example.positive for example in examples], patients, num_folds, seed)
    if fold not in range(num_folds):
        raise UsageError(
            f'config.data.fold is {fold}; expected 0 to {num_folds - 1}, as config.data.num_folds '
            f'is {num_folds}'
        )
    train, validation = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
    require_disjoint((patients[i] for i in train), (patients[i] for i in validation))
    return train, validation


def _stated(examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """The split by the examples' `side`. Raises UsageError if it cannot be used."""
    by_side: dict[str, dict[str, str]] = {'train': {}, 'validation': {}}  # patient to an ImageId
    for example in examples:
        by_side[example.side].setdefault(example.patient_id, example.image_id)
    train, validation = by_side['train'], by_side['validation']
    if not train or not validation:
        raise UsageError(
            f'config.data.table leaves {len(examples)} images, none of them to '
            f'{"validate" if train else "train"} on; assign some of them to that side'
        )
    shared = sorted(train.keys() & validation.keys(), key=train.__getitem__)
    if shared:
        raise UsageError(
            f'config.data.table puts images of {len(shared)} patients on both sides of the split, '
            f'such as ImageId {train[shared[0]]} in train and {validation[shared[0]]} in '
            'validation (held out); keep all images of a patient on one side'
        )
    sides = np.array([example.side for example in examples])
    return np.flatnonzero(sides == 'train'), np.flatnonzero(sides == 'validation')


def require_disjoint(train: Iterable[str], validation: Iterable[str]) -> None:
    """Raises an error if a patient is on both sides.

    Args:
      train: patients to train on, repeats allowed.
      validation: patients to validate on, repeats allowed.

    Raises:
      RuntimeError: with the number of shared patients, but not their ids.
    """
    shared = set(train) & set(validation)
    if shared:
        raise RuntimeError(f'{len(shared)} patients are in both training and validation images')


def _hash(seed: int, patient: str) -> bytes:
    return hashlib.blake2b(f'{seed}:{patient}'.encode(), digest_size=8).digest()
