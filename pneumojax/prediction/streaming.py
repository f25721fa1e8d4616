"""Files in, finished rows out, in order: reading, predicting and writing overlap.

Threads read and fit images, the device predicts batches, threads write. What waits between them is
bounded in images and in pixels, so memory does not grow with the number of files.
"""

import collections
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from pneumojax.data import geometry
from pneumojax.data.files import headers, inputs
from pneumojax.prediction.ensemble import Ensemble, Squares
from pneumojax.system import parallel

_PIXELS_WAITING = 64_000_000  # of originals that wait for the device or the disk
Row = dict[str, Any]


class Item(NamedTuple):
    """One input file."""

    path: str
    file: str  # as results.csv names it, and the journal
    name: str  # ImageId: of what is written about it


class Loaded(NamedTuple):
    """An item that was read, or was not."""

    item: Item
    radiograph: inputs.Radiograph | None
    squares: Squares  # uint8
    row: Row  # what is known so far

    @property
    def pixels(self) -> int:
        """Of the original image; 0 where it could not be read."""
        return self.radiograph.image.size if self.radiograph else 0


def predicted_rows(
    ensemble: Ensemble, items: Sequence[Item], write: Callable[[Loaded, Squares], Row]
) -> Iterator[Row]:
    """Reads, predicts and writes; yields a finished row for each item, in their order.

    Args:
      ensemble: predicts.
      items: what to read.
      write: from (Loaded, squares of probabilities) to the finished row; called in threads.
    """
    workers = min(16, parallel.cores())
    waiting: collections.deque[tuple[int, Row | Future]] = collections.deque()

    def take():
        _, row = waiting.popleft()
        return row.result() if isinstance(row, Future) else row

    with ThreadPoolExecutor(workers) as reading, ThreadPoolExecutor(workers) as writing:
        try:
            read = functools.partial(load, sizes=ensemble.sizes)
            loaded = parallel.ordered_map(reading, read, items, 2 * workers)
            for group in _groups(loaded, ensemble.batch_size):
                for one, squares in _predict_group(ensemble, group):
                    if squares is None:
                        waiting.append((0, one.row))
                    else:
                        waiting.append((one.pixels, writing.submit(write, one, squares)))
                while len(waiting) > ensemble.batch_size or (
                    sum(pixels for pixels, _ in waiting) > _PIXELS_WAITING
                ):
                    yield take()
            while waiting:
                yield take()
        finally:
            for _, row in waiting:
                if isinstance(row, Future):
                    row.cancel()


def load(item: Item, sizes: Sequence[int]) -> Loaded:
    """Reads one file and fits it into squares; never raises because of what a file holds."""
    row = {
        'file': item.file, 'ImageId': item.name, 'status': 'ok', 'reason': '',
        'notes': [], 'probability': None, 'area_px': None, 'area_mm2': None, 'sop': None,
        **stamp(item.path),
    }  # fmt: skip
    try:
        radiograph = inputs.read(item.path)
    except inputs.Skipped as reason:
        return Loaded(item, None, {}, row | {'status': 'skipped', 'reason': str(reason)})
    except inputs.Unreadable as reason:
        return Loaded(item, None, {}, row | {'status': 'error', 'reason': str(reason)})
    squares = {s: geometry.fit_image(radiograph.image, s, radiograph.aspect) for s in sizes}
    note = inputs.name_note(item.file, item.name)
    row['notes'] = [*([note] if note else []), *radiograph.notes]
    if radiograph.header is not None:
        instance = headers.text(radiograph.header, 'SOPInstanceUID')
        # To find equal ones. Not as it stands: in a malformed header it may be a name.
        row['sop'] = hashlib.sha256(instance.encode()).hexdigest()[:16] if instance else None
    return Loaded(item, radiograph, squares, row)


def _predict_group(ensemble, group):
    """Pairs of (loaded, its squares of probabilities; None where nothing was read)."""
    usable = [one for one in group if one.radiograph is not None]
    results = iter(())
    if usable:
        batch = {size: np.stack([one.squares[size] for one in usable]) for size in ensemble.sizes}
        squares = ensemble.predict(batch)
        results = iter({s: squares[s][i] for s in squares} for i in range(len(usable)))
    return [(one, next(results) if one.radiograph is not None else None) for one in group]


def _groups(loaded: Iterable[Loaded], batch_size: int) -> Iterator[list[Loaded]]:
    """As many as fill a batch, fewer where the originals are large, failures in their places."""
    group: list[Loaded] = []
    for one in loaded:
        group.append(one)
        images = sum(other.radiograph is not None for other in group)
        large = sum(other.pixels for other in group) > _PIXELS_WAITING
        if images == batch_size or large or len(group) >= 4 * batch_size:
            yield group
            group = []
    if group:
        yield group


def stamp(path: str) -> dict[str, int]:
    """Changes when the file does."""
    try:
        status = os.stat(path)
    except OSError:
        return {'bytes': -1, 'time': -1}
    return {'bytes': status.st_size, 'time': status.st_mtime_ns}
