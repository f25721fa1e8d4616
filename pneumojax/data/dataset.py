"""From a config to a data set that can be read: draw phantoms, find images, decode once, split."""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from pneumojax.data.cache import records
from pneumojax.data.datasets import folder_dataset, folder_unlabelled, siim, splits
from pneumojax.data.datasets.example import Example
from pneumojax.data.files.silence import silence_libraries
from pneumojax.data.phantoms import phantom
from pneumojax.errors import UsageError
from pneumojax.system.progress import log

MAX_FOLDS = 1000  # as many as `data.num_folds` may be


class Dataset(NamedTuple):
    """A data set, decoded at one size and split. Index i means the same image everywhere."""

    examples: tuple[Example, ...]
    records: records.Records
    train: np.ndarray  # int [N], indices
    validation: np.ndarray  # int [M], indices; they share no patient with `train`

    @property
    def positive(self) -> np.ndarray:
        """bool [N + M], which examples have a pneumothorax."""
        return np.array([e.positive for e in self.examples])

    def split_ids(self) -> dict[str, list[str]]:
        """ImageIds to train on and to hold out, as a run directory records them."""
        return {
            'train': [self.examples[i].image_id for i in self.train],
            'validation': [self.examples[i].image_id for i in self.validation],
        }


@silence_libraries()
def examples(config: ConfigDict) -> tuple[Example, ...]:
    """Lists the images that `config.data` names; phantoms are drawn first if it asks for them.

    Raises:
      UsageError: there is no usable data set; see `siim.find` and `folder_dataset.find`.
    """
    data = config.data
    if data.phantoms.num_images:
        phantom.write_dataset(
            data.root,
            num_images=data.phantoms.num_images,
            size=data.phantoms.size,
            seed=data.phantoms.seed,
            positive_share=data.phantoms.positive_share,
        )
    found = find(data, unlabelled=config.loss.restoration > 0)
    return _subset(found, data.num_examples, data.split_seed) if data.num_examples else found


def require_folder(config: ConfigDict) -> None:
    """UsageError where there is no folder of images, which is known before they are read."""
    data = config.data
    if not data.phantoms.num_images and not os.path.isdir(data.root):
        find(data, unlabelled=config.loss.restoration > 0)  # says what it looked for


@silence_libraries()
def load(config: ConfigDict, also: Sequence[int] = ()) -> Dataset:
    """Finds the images that `config.data` names, decodes them unless cached, and splits them.

    Args:
      config: `data` and `image_size` are read, and `loss` for whether labels are needed.
      also: more sizes to decode the images to in the same pass.

    Raises:
      UsageError: there is no usable data set; see `find` and `records.prepare`.
    """
    data, found = config.data, examples(config)
    train, validation = splits.split(
        found, fold=data.fold, num_folds=data.num_folds, seed=data.split_seed
    )
    positive = np.array([e.positive for e in found])
    unlabelled = config.loss.restoration > 0
    held_out = 'by the table' if found[0].side else f'fold {data.fold} of {data.num_folds}'
    if unlabelled:
        log.info('%d images; held out (%s): %d', len(found), held_out, len(validation))
    else:
        log.info(
            '%d images, %d with a pneumothorax; held out (%s): %d images, %d positive',
            len(found), positive.sum(), held_out, len(validation), positive[validation].sum(),
        )  # fmt: skip
    if not len(train) or not len(validation):
        raise UsageError(
            f'config.data.num_folds is {data.num_folds}: {len(found)} images leave '
            f'{len(train)} to train on and {len(validation)} to validate on; use fewer folds'
        )
    if not unlabelled:
        for warning in _without_positives(positive, train, validation):
            log.warning('%s', warning)
    return Dataset(
        found, records.prepare(data.cache, found, config.image_size, also), train, validation
    )


def _without_positives(
    positive: np.ndarray, train: np.ndarray, validation: np.ndarray
) -> Iterator[str]:
    """Warnings about positives that are missing.

    Marking nothing is then right everywhere, so training and its figures look perfect.
    """
    if not positive.any():
        yield (
            f'none of the {len(positive)} images has a pneumothorax: the network cannot learn to '
            'find one, and a mean Dice of 1 means that it marks nothing; check the masks'
        )
        return
    few = 'more images with a pneumothorax, or another split, are needed'
    if not positive[train].any():
        yield (
            f'none of the {len(train)} images to train on has a pneumothorax, so the network '
            f'cannot learn to find one; {few}'
        )
    if not positive[validation].any():
        yield (
            f'none of the {len(validation)} held-out images has a pneumothorax, so a mean Dice of '
            f'1 means that nothing is marked, and the rule will leave every image empty; {few}'
        )


def find(data: ConfigDict, *, unlabelled: bool = False) -> tuple[Example, ...]:
    """Lists the images that `config.data` names, in Kaggle's layout or a folder of your own.

    Kaggle's layout is recognised by its CSV, unless `data.masks` or `data.table` is set. With
    `unlabelled`, every image of either is listed, and no mask is read.
    """
    default = pathlib.Path(data.root) / 'patients.csv'
    patients = data.patients or (str(default) if default.is_file() else '')
    if unlabelled:
        return folder_unlabelled.find(
            data.root, data.masks, data.table, patients, fold=data.fold, num_folds=data.num_folds
        )
    there = bool(data.root) and pathlib.Path(data.root).is_dir()
    if data.masks or data.table or (there and siim.find_annotations(data.root) is None):
        return folder_dataset.find(
            data.root, data.masks, data.table, patients, fold=data.fold, num_folds=data.num_folds
        )
    return siim.find(data.root, patients).examples


def find_all(root: str) -> tuple[Example, ...]:
    """Lists all labelled images below a folder in either layout, on whichever side of a split.

    Args:
      root: as `data.root`; its tables and masks have their default names.

    Raises:
      UsageError: there is no usable data set; see `siim.find` and `folder_dataset.find`.
    """
    default = pathlib.Path(root) / 'patients.csv'
    patients = str(default) if default.is_file() else ''
    if pathlib.Path(root).is_dir() and siim.find_annotations(root) is not None:
        return siim.find(root, patients).examples
    return folder_dataset.find(root, patients=patients, num_folds=MAX_FOLDS, with_test=True)


def _subset(examples: tuple[Example, ...], count: int, seed: int) -> tuple[Example, ...]:
    """A seeded random subset, in the original order."""
    chosen = np.random.default_rng([seed, 1]).permutation(len(examples))[:count]
    return tuple(examples[i] for i in sorted(chosen))
