"""Shards: files of records.

A record is the bytes of the image and then of the mask, eight pixels per byte, so reading needs no
parser. The bytes of a shard depend only on its examples and its size.
"""

import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from pneumojax.data import geometry
from pneumojax.data.datasets import example as example_lib
from pneumojax.data.datasets.example import Example
from pneumojax.system.parallel import cores, ordered_map
from pneumojax.system.progress import bar

SHARD_SIZE = 256  # records at least; the last shard has the remainder
MAX_SHARDS = 128  # each is an open file while it is read

Shape = tuple[int, int]  # of an image: height, width


def encode(image: np.ndarray, mask: np.ndarray) -> bytes:
    """Makes one record of an image and a mask, uint8 [S, S] each; the mask is 0 or 1."""
    return b''.join((np.ascontiguousarray(image).data, np.packbits(mask).data))  # copied once


def record_bytes(size: int) -> int:
    """The length of a record of a size x size image."""
    return size * size + (size * size + 7) // 8


def decode(record: bytes, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `encode`. Raises ValueError if the record has another length."""
    pixels = size * size
    if len(record) != record_bytes(size):
        raise ValueError(
            f'a record has {len(record)} bytes, expected {record_bytes(size)} for a {size} px image'
        )
    data = np.frombuffer(record, np.uint8)
    mask = np.unpackbits(data[pixels:], count=pixels)
    return data[:pixels].reshape(size, size), mask.reshape(size, size)


def write(
    folders: dict[int, pathlib.Path], examples: Sequence[Example]
) -> tuple[list[str], list[Shape]]:
    """Decodes every image once and writes its record at each size.

    Args:
      folders: the folder for the shards of each size.
      examples: in the order of the records.

    Returns:
      The names of the shards, which are the same in every folder, and the shapes of the images.

    Raises:
      UsageError: an image or its mask cannot be read; of several such images the first.
      OSError: a shard cannot be written.
    """
    step = max(SHARD_SIZE, -(-len(examples) // MAX_SHARDS))
    parts = [examples[start : start + step] for start in range(0, len(examples), step)]
    names = [f'shard-{i:05d}.array_record' for i in range(len(parts))]
    label = f'prepare {" and ".join(map(str, folders))} px'
    shapes: list[Shape] = []
    with (
        bar(desc=label, total=len(examples), unit='image') as progress,
        ThreadPoolExecutor(cores()) as pool,
    ):
        fitted = ordered_map(pool, lambda e: _fit(e, tuple(folders)), examples, 4 * cores())
        for name, part in zip(names, parts, strict=True):
            paths = [str(folder / name) for folder in folders.values()]
            for shape in _shard(paths, itertools.islice(fitted, len(part))):
                shapes.append(shape)
                progress.update()
    return names, shapes


class _Fitted(NamedTuple):
    records: list[bytes]  # one per size
    shape: Shape


def _shard(paths: Sequence[str], fitted: Iterable[_Fitted]) -> Iterator[Shape]:
    """Writes one shard of each size; yields the shape of each image after writing it."""
    # One record per group, so that random access reads one record; compression would be slow.
    writers = [ArrayRecordWriter(path, 'group_size:1,uncompressed') for path in paths]
    for item in fitted:
        for writer, record in zip(writers, item.records, strict=True):
            _save(writer.write, record)
        yield item.shape
    for writer in writers:
        _save(writer.close)


def _save(call: Callable[..., object], *args: bytes) -> None:
    """Raises OSError for ArrayRecord's RuntimeError, as on a full disk."""
    try:
        call(*args)
    except RuntimeError as error:
        raise OSError(' '.join(str(error).split())) from None


def _fit(example: Example, sizes: Sequence[int]) -> _Fitted:
    image = example_lib.read(example)
    # Most images have no mask; drawing and fitting an empty one would take as long.
    mask = example_lib.draw(example, image.shape) if example.positive else None

    def fit_mask(size: int) -> np.ndarray:
        return np.zeros((size, size), np.uint8) if mask is None else geometry.fit_mask(mask, size)

    records = [encode(geometry.fit_image(image, size), fit_mask(size)) for size in sizes]
    return _Fitted(records, image.shape)
