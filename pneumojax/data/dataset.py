"""From a configuration to images that can be read: find, (draw), decode once, split."""

import pathlib
from typing import NamedTuple

import numpy as np

from pneumojax.data import phantom, records, siim, splits
from pneumojax.errors import UsageError
from pneumojax.progress import log


class Dataset(NamedTuple):
    """A data set, decoded at one size and split. Index i means the same image everywhere."""

    examples: tuple[siim.Example, ...]
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


def examples(config) -> tuple[siim.Example, ...]:
    """The images that `config.data` names, none of them read.

    Raises:
      UsageError: no data set, or one that cannot be used; see `siim.find`.
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
    found = siim.find(data.root, _patients(data)).examples
    return _subset(found, data.num_examples, data.split_seed) if data.num_examples else found


def load(config) -> Dataset:
    """Finds the images that `config.data` names, decodes them if need be, and splits them.

    Args:
      config: `data` and `image_size` are read.

    Raises:
      UsageError: no data set, or one that cannot be used; see `siim.find` and `records.prepare`.
    """
    data, found = config.data, examples(config)
    train, validation = splits.split(
        found, fold=data.fold, num_folds=data.num_folds, seed=data.split_seed
    )
    positive = np.array([e.positive for e in found])
    log.info(
        '%d images, %d with a pneumothorax; fold %d of %d held out: %d images, %d positive',
        len(found), positive.sum(), data.fold, data.num_folds,
        len(validation), positive[validation].sum(),
    )  # fmt: skip
    if not len(train) or not len(validation):
        raise UsageError(
            f'config.data.num_folds is {data.num_folds}: {len(found)} images leave '
            f'{len(train)} to train on and {len(validation)} to validate on; use fewer folds'
        )
    return Dataset(found, records.prepare(data.cache, found, config.image_size), train, validation)


def _patients(data) -> str | None:
    beside = pathlib.Path(data.root) / 'patients.csv'
    return data.patients or (str(beside) if beside.is_file() else None)


def _subset(examples, count: int, seed: int):
    """A seeded draw, in the old order."""
    chosen = np.random.default_rng([seed, 1]).permutation(len(examples))[:count]
    return tuple(examples[i] for i in sorted(chosen))
