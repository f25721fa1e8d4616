"""Files in, finished rows out, in order; reading, predicting and writing overlap.

Threads read and fit images, the device predicts batches, threads write. The queues between them are
bounded in images and in pixels, so memory does not grow with the number of files.
"""

import collections
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pneumojax.data import geometry
from pneumojax.data.files import chest, headers, inputs
from pneumojax.prediction import plausibility
from pneumojax.prediction.ensemble import Ensemble, Squares
from pneumojax.prediction.journal import ResultRow
from pneumojax.system import parallel

_PIXELS_WAITING = 64_000_000  # of originals that wait for the device or the disk


class Item(NamedTuple):
    """One input file."""

    path: str
    file: str  # as results.csv names it, and the journal
    name: str  # ImageId, which names what is written about it


class Loaded(NamedTuple):
    """An item after the attempt to read it."""

    item: Item
    radiograph: inputs.Radiograph | None
    squares: Squares  # uint8
    row: ResultRow  # what is known so far

    @property
    def pixels(self) -> int:
        """Size of the original image; 0 if it could not be read."""
        return self.radiograph.image.size if self.radiograph else 0


def predicted_rows(
    ensemble: Ensemble,
    items: Sequence[Item],
    finish: Callable[[Loaded, Squares], ResultRow],
    accept: chest.Accept = 'chest',
) -> Iterator[ResultRow]:
    """Reads, predicts and writes; yields a finished row for each item, in order.

    Args:
      ensemble: what predicts.
      items: what to read.
      finish: from (Loaded, squares of probabilities) to the finished row; called in threads.
      accept: see `inputs.read`.
    """
    workers = min(16, parallel.cores())
    waiting: collections.deque[tuple[int, ResultRow | Future]] = collections.deque()

    def take() -> ResultRow:
        _, row = waiting.popleft()
        return row.result() if isinstance(row, Future) else row

    with ThreadPoolExecutor(workers) as reading, ThreadPoolExecutor(workers) as writing:
        try:
            read = functools.partial(load, sizes=ensemble.sizes, accept=accept)
            loaded = parallel.ordered_map(reading, read, items, 2 * workers)
            for group in _groups(loaded, ensemble.batch_size):
                for one, squares in _predict_group(ensemble, group):
                    if squares is None:
                        waiting.append((0, one.row))
                    else:
                        waiting.append((one.pixels, writing.submit(finish, one, squares)))
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


def load(item: Item, sizes: Sequence[int], accept: chest.Accept = 'chest') -> Loaded:
    """Reads one file and fits it into squares; never raises because of what a file holds."""
    row = {
        'file': item.file, 'ImageId': item.name, 'status': 'ok', 'reason': '',
        'notes': [], 'probability': None, 'score': None, 'area_px': None, 'area_mm2': None,
        'sop': None, **stamp(item.path),
    }  # fmt: skip
    try:
        radiograph = inputs.read(item.path, accept=accept)
    except inputs.Skipped as reason:
        return Loaded(item, None, {}, row | {'status': 'skipped', 'reason': str(reason)})
    except inputs.Unreadable as reason:
        return Loaded(item, None, {}, row | {'status': 'error', 'reason': str(reason)})
    squares = {s: geometry.fit_image(radiograph.image, s, radiograph.aspect) for s in sizes}
    note = inputs.name_note(item.file, item.name)
    doubt = plausibility.note(radiograph.image)
    row['notes'] = [*filter(None, (note, doubt)), *radiograph.notes]
    if radiograph.header is not None:
        instance = headers.text(radiograph.header, 'SOPInstanceUID')
        # To find duplicates. Hashed, because in a malformed header it may be a name.
        row['sop'] = hashlib.sha256(instance.encode()).hexdigest()[:16] if instance else None
    return Loaded(item, radiograph, squares, row)


def _predict_group(
    ensemble: Ensemble, group: Sequence[Loaded]
) -> list[tuple[Loaded, Squares | None]]:
    """Pairs of (loaded, its squares of probabilities; None if it could not be read)."""
    usable = [one for one in group if one.radiograph is not None]
    results: Iterator[Squares] = iter(())
    if usable:
        batch = {size: np.stack([one.squares[size] for one in usable]) for size in ensemble.sizes}
        squares = ensemble.predict(batch)
        results = iter({s: squares[s][i] for s in squares} for i in range(len(usable)))
    return [(one, next(results) if one.radiograph is not None else None) for one in group]


def _groups(loaded: Iterable[Loaded], batch_size: int) -> Iterator[list[Loaded]]:
    """Groups that fill a batch, or less if the originals are large; failures keep their places."""
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
    """Size and modification time of a file, which tell whether it has changed."""
    try:
        status = os.stat(path)
    except OSError:
        return {'bytes': -1, 'time': -1}
    return {'bytes': status.st_size, 'time': status.st_mtime_ns}
