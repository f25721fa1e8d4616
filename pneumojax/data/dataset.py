"""From a configuration to images that can be read: find, (draw), decode once, split."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pneumojax.data.cache import records
from pneumojax.data.datasets import folder_dataset, siim, splits
from pneumojax.data.datasets.example import Example
from pneumojax.data.files.silence import silence_libraries
from pneumojax.data.phantoms import phantom
from pneumojax.errors import UsageError
from pneumojax.system.progress import log


class Dataset(NamedTuple):
    """A data set, decoded at one size and split. Index i means the same image everywhere."""

    examples: tuple[Example, ...]
    records: records.Records
    train: np.ndarray  # int [N], indices
    validation: np.ndarray  # int [M], indices; no patient of `train` is among them

    @property
    def positive(self) -> np.ndarray:
        """bool, which examples have a pneumothorax."""
        return np.array([e.positive for e in self.examples])

    def split_ids(self) -> dict[str, list[str]]:
        """ImageIds trained on and held out, as a run directory records them."""
        return {
            'train': [self.examples[i].image_id for i in self.train],
            'validation': [self.examples[i].image_id for i in self.validation],
        }


@silence_libraries()
def examples(config) -> tuple[Example, ...]:
    """The images that `config.data` names, none of them read.

    Raises:
      UsageError: no data set, or one that cannot be used; see `siim.find` and `own.find`.
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
    found = find(data)
    return _subset(found, data.num_examples, data.split_seed) if data.num_examples else found


@silence_libraries()
def load(config, also: Sequence[int] = ()) -> Dataset:
    """Finds the images that `config.data` names, decodes them if need be, and splits them.

    Args:
      config: `data` and `image_size` are read.
      also: more sizes to decode the images at in the same pass.

    Raises:
      UsageError: no data set, or one that cannot be used; see `find` and `records.prepare`.
    """
    data, found = config.data, examples(config)
    train, validation = splits.split(
        found, fold=data.fold, num_folds=data.num_folds, seed=data.split_seed
    )
    positive = np.array([e.positive for e in found])
    held_out = 'by the table' if found[0].side else f'fold {data.fold} of {data.num_folds}'
    log.info(
        '%d images, %d with a pneumothorax; held out (%s): %d images, %d positive',
        len(found), positive.sum(), held_out, len(validation), positive[validation].sum(),
    )  # fmt: skip
    if not len(train) or not len(validation):
        raise UsageError(
            f'config.data.num_folds is {data.num_folds}: {len(found)} images leave '
            f'{len(train)} to train on and {len(validation)} to validate on; use fewer folds'
        )
    return Dataset(
        found, records.prepare(data.cache, found, config.image_size, also), train, validation
    )


def find(data) -> tuple[Example, ...]:
    """The labelled images that `config.data` names, in Kaggle's layout or one's own.

    Kaggle's is known by its CSV; `data.masks` or `data.table` say that it is one's own.
    """
    beside = pathlib.Path(data.root) / 'patients.csv'
    patients = data.patients or (str(beside) if beside.is_file() else '')
    there = bool(data.root) and pathlib.Path(data.root).is_dir()
    if data.masks or data.table or (there and siim.find_annotations(data.root) is None):
        return folder_dataset.find(
            data.root, data.masks, data.table, patients, fold=data.fold, num_folds=data.num_folds
        )
    return siim.find(data.root, patients).examples


def _subset(examples, count: int, seed: int):
    """A seeded draw, in the old order."""
    chosen = np.random.default_rng([seed, 1]).permutation(len(examples))[:count]
    return tuple(examples[i] for i in sorted(chosen))
