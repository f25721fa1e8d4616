"""The probabilities of every image as rules see them, for masks under a rule chosen later.

The thresholds of `thresholds.GRID` are multiples of 0.01 from 0.05 on. So one byte a pixel, the
number of hundredths that it reaches, gives the mask of any of these rules exactly. Below 0.05 it is
0, which leaves most of an image empty: compressed it takes some kilobytes.
"""

import contextlib
import io
import json
import pathlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from pneumojax.errors import UsageError
from pneumojax.evaluation import rules
from pneumojax.system import atomic

FILE = 'levels.zip'
STEPS = 100  # levels of a probability
_LOWEST = 5
_ABOUT = 'about.json'
# What zipfile raises for files that are missing, damaged or cut short.
_DAMAGED = (
    OSError, EOFError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def of(probability: ArrayLike) -> np.ndarray:
    """Levels of probabilities: uint8 of the same shape [H, W], 0 and 5 to 99.

    Raises:
      ValueError: a value is NaN or not a probability.
    """
    levels = (rules.quantize(probability) // (rules.BINS // STEPS)).astype(np.uint8)
    return cv2.threshold(levels, _LOWEST - 1, 0, cv2.THRESH_TOZERO)[1]


def mask(rule: rules.Rule, levels: np.ndarray) -> np.ndarray:
    """The mask that a rule makes: uint8 0/1 [H, W], equal to `rules.apply` on the probabilities.

    Args:
      rule: with thresholds that are multiples of 0.01, 0.05 or more.
      levels: uint8 [H, W], see `of`.

    Raises:
      ValueError: levels do not tell where a threshold of this rule is reached.
    """
    return rules.mask(rule, levels >= _level(rule.top), levels >= _level(rule.bottom))


def _level(threshold: float) -> int:
    level, rest = divmod(rules.bin_of(threshold), rules.BINS // STEPS)
    if rest or level < _LOWEST:
        raise ValueError(f'threshold {threshold}: a multiple of 0.01 from 0.05 on expected')
    return level


@contextlib.contextmanager
def writing(path: pathlib.Path, about: Any) -> Iterator['Writer']:
    """A context that writes a file of levels, whole or not at all.

    Args:
      path: of the file.
      about: JSON that says what the levels are of; `Levels` wants the same.
    """
    with (
        atomic.replacing(path) as unfinished,
        # As small as PNG, in half of the time.
        zipfile.ZipFile(unfinished, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as file,
    ):
        file.writestr(_ABOUT, json.dumps(about))
        yield Writer(file)


class Writer:
    """Adds images to a file of levels, numbered from 0."""

    def __init__(self, file: zipfile.ZipFile):
        self._file, self._count = file, 0

    def add(self, probability: np.ndarray) -> None:
        """Adds the next image: float [H, W] in [0, 1]."""
        with self._file.open(f'{self._count}.npy', 'w') as entry:
            np.save(entry, of(probability))
        self._count += 1


class Levels:
    """A file of levels, open for reading, from several threads too.

    Args:
      path: of the file.
      about: what it was written with.

    Raises:
      ValueError: there is no such file, or it is of something else.
    """

    def __init__(self, path: pathlib.Path, about: Any):
        self._path = path
        try:
            self._file = zipfile.ZipFile(path)
            found = self._file.read(_ABOUT).decode()
        except _DAMAGED as error:
            raise ValueError(f'{path} cannot be read') from error
        if found != json.dumps(about):
            raise ValueError(f'{path} is of another evaluation')

    def __getitem__(self, number: int) -> np.ndarray:
        """uint8 [H, W]: the levels of an image. UsageError if they are damaged."""
        try:
            return np.load(io.BytesIO(self._file.read(f'{number}.npy')), allow_pickle=False)
        except _DAMAGED as error:
            raise UsageError(
                f'{self._path} is damaged; delete it, and the run is evaluated anew'
            ) from error
