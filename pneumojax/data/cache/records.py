"""The cache: every image decoded and fitted once, as ArrayRecord shards.

A cache folder is named after its contents (the list of files, the annotations, the size) and is
renamed into place when it is complete, so neither a stale nor a half-written one is ever read.
`shards` describes the records and writes them.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence

import cv2
import grain.python as grain
import numpy as np

from pneumojax.data.cache import shards
from pneumojax.data.datasets.example import Example
from pneumojax.errors import UsageError
from pneumojax.system import atomic
from pneumojax.system.progress import log

FORMAT = 2  # raise it when the bytes of a record or the decoding change
_DELETE = 'delete the folder, and the next run makes it again'


class Records:
    """Random access to a complete cache folder. Picklable: worker processes open files themselves.

    Args:
      folder: a complete cache, see `cache_folder`.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = pathlib.Path(folder)
        try:
            manifest = json.loads((self.folder / 'manifest.json').read_text())
            self.size = manifest['image_size']
            self.image_ids = manifest['image_ids']
            self.shapes = [tuple(s) for s in manifest['shapes']]  # of the original images, (H, W)
            paths = [str(self.folder / name) for name in manifest['shards']]
            self._source = grain.ArrayRecordDataSource(paths)
            count = len(self._source)
        except Exception as error:  # ArrayRecord raises several types
            raise UsageError(
                f'{self.folder} is damaged ({type(error).__name__}); {_DELETE}'
            ) from None
        if count != len(self.image_ids):
            raise UsageError(
                f'{self.folder} holds {count} records instead of {len(self.image_ids)}; {_DELETE}'
            )

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and mask, uint8 [size, size] each; the mask is 0 or 1.

        Raises:
          UsageError: the record is damaged; ArrayRecord stores a hash of each.
        """
        with self._damage_named(index):
            return shards.decode(self._source[int(index)], self.size)

    @property
    def num_bytes(self) -> int:
        """The length of all records together."""
        return len(self) * shards.record_bytes(self.size)

    def everything(self) -> np.ndarray:
        """Reads all encoded records: uint8 [N, bytes per record], see `shards.encode`."""
        stored = np.empty((len(self), shards.record_bytes(self.size)), np.uint8)
        for index in range(len(self)):
            with self._damage_named(index):
                stored[index] = np.frombuffer(self._source[index], np.uint8)
        return stored

    @contextlib.contextmanager
    def _damage_named(self, index: int) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError) as error:
            raise UsageError(
                f'{self.folder}: the record of ImageId {self.image_ids[int(index)]} is damaged '
                f'({" ".join(str(error).split())[:120]}); {_DELETE}'
            ) from None


def cache_key(examples: Sequence[Example], size: int) -> str:
    """A hash of the files (path, length, time), the annotations, the size and the format."""
    digest = hashlib.sha256(f'{FORMAT} {size} {cv2.__version__}'.encode())
    for example in examples:
        try:
            stat = os.stat(example.path)
        except OSError as error:
            raise UsageError(
                f'ImageId {example.image_id}: {example.path} cannot be read: {error.strerror}; '
                'fix or remove it'
            ) from None
        digest.update(
            f'\n{example.image_id}\t{os.path.abspath(example.path)}\t{stat.st_size}\t{stat.st_mtime_ns}'
            f'\t{"|".join(example.rles)}'.encode('utf-8', 'surrogateescape')
        )
    return digest.hexdigest()[:16]


def cache_folder(cache: str | os.PathLike, examples: Sequence[Example], size: int) -> pathlib.Path:
    """The folder in which `prepare` keeps these examples at this size."""
    return pathlib.Path(cache) / f'{size}px-{cache_key(examples, size)}'


def prepare(
    cache: str | os.PathLike, examples: Sequence[Example], size: int, also: Sequence[int] = ()
) -> Records:
    """Opens the cache of these examples; makes it first if it is missing or stale.

    Args:
      cache: folder that holds one folder per data set and size.
      examples: in the order of the records.
      size: side of the fitted squares in pixels.
      also: more sizes to make while the images are decoded.

    Raises:
      UsageError: a file cannot be read, a mask does not fit its image, or the disk is full.
    """
    folders = {s: cache_folder(cache, examples, s) for s in dict.fromkeys((size, *also))}
    missing = {s: f for s, f in folders.items() if not _is_complete(f)}
    for s in folders.keys() - missing.keys():
        log.info('%d images at %d px are in %s', len(examples), s, folders[s])
    if missing:
        _make(missing, examples)
    return Records(folders[size])


def _make(folders: dict[int, pathlib.Path], examples: Sequence[Example]) -> None:
    """Writes the folders of all sizes; they appear when all are complete."""
    parent = next(iter(folders.values())).parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            unfinished = {
                size: stack.enter_context(atomic.new_folder(folder, _is_complete))
                for size, folder in folders.items()
            }
            _write(unfinished, examples)
    except OSError as error:
        raise UsageError(f'config.data.cache: cannot write in {parent}: {error}') from None


def _is_complete(folder: pathlib.Path) -> bool:
    return (folder / 'manifest.json').is_file()


def _write(folders: dict[int, pathlib.Path], examples: Sequence[Example]) -> None:
    names, shapes = shards.write(folders, examples)
    for size, folder in folders.items():
        manifest = {
            'format': FORMAT,
            'image_size': size,
            'shards': names,
            'image_ids': [e.image_id for e in examples],
            'shapes': shapes,
        }
        (folder / 'manifest.json').write_text(json.dumps(manifest))
