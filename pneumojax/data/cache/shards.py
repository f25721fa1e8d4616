"""Shards: files of records, written by threads of this process or by one process per core.

A record is the bytes of the image and then of the mask, eight pixels per byte, so reading needs no
parser. The bytes of a shard depend only on its examples and its size, not on what writes it.

Reading the tags of a DICOM file holds Python's lock for about a fifth of the time of an image, so
threads cannot keep more than about five cores busy, and gain nothing from the others. Large data
sets are therefore written by helper processes, one shard at a time each; on two cores they are no
faster than threads. Both sides exchange lines of JSON over pipes; nothing is unpickled.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from tqdm import tqdm

from pneumojax.data import geometry
from pneumojax.data.datasets import example as example_lib
from pneumojax.data.datasets.example import Example
from pneumojax.data.files import dicom
from pneumojax.data.files.silence import silence_libraries
from pneumojax.errors import UsageError
from pneumojax.system import locks, subprocesses
from pneumojax.system.parallel import cores, ordered_map

SHARD_SIZE = 256  # records at least; the last shard has the remainder
MAX_SHARDS = 128  # each is an open file while it is read
PROCESSES_FROM = 2048  # images; threads finish fewer before helpers have done their imports
MAX_PROCESSES = 32  # about 100 MB each
_AT_A_TIME = 16  # images that a helper reports in one line
# By default glibc returns the memory of each image to the system and allocates it again, page by
# page, which takes a third of a helper's time. Other C libraries ignore these variables.
KEEP_MEMORY = {
    'MALLOC_MMAP_THRESHOLD_': str(32 << 20),
    'MALLOC_TRIM_THRESHOLD_': str(256 << 20),
}

Job = tuple[dict[int, str], Sequence[Example]]  # path of the shard of each size; its examples
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
    jobs = [
        ({size: str(folder / name) for size, folder in folders.items()}, part)
        for name, part in zip(names, parts, strict=True)
    ]
    helpers = min(cores(), len(jobs), MAX_PROCESSES) if len(examples) >= PROCESSES_FROM else 1
    label = f'prepare {" and ".join(map(str, folders))} px'
    with tqdm(total=len(examples), desc=label, unit='image') as progress:
        if helpers > 1:
            return names, _by_processes(jobs, helpers, progress.update)
        return names, _by_threads(jobs, progress.update)


def _by_threads(jobs: Sequence[Job], done: Callable[[int], object]) -> list[Shape]:
    shapes = []
    with ThreadPoolExecutor(cores()) as pool:
        everything = ((example, tuple(paths)) for paths, part in jobs for example in part)
        fitted = ordered_map(pool, lambda item: _fit(*item), everything, 4 * cores())
        for paths, part in jobs:
            for shape in _shard(paths, itertools.islice(fitted, len(part))):
                shapes.append(shape)
                done(1)
    return shapes


def _by_processes(jobs: Sequence[Job], count: int, done: Callable[[int], object]) -> list[Shape]:
    idle: queue.SimpleQueue[subprocess.Popen] = queue.SimpleQueue()
    done_lock, shapes = threading.Lock(), []

    def delegate(job: Job) -> list[Shape]:
        helper, found = idle.get(), []
        try:
            for some in _ask(helper, job):
                found += some
                with done_lock:
                    done(len(some))
        finally:
            idle.put(helper)  # even if it has ended: no thread may wait for it forever
        return found

    # On exit helpers are killed, then the threads that listen to them end, then pipes are closed.
    with contextlib.ExitStack() as open_, ThreadPoolExecutor(count) as pool, \
            contextlib.ExitStack() as running:  # fmt: skip
        for _ in range(count):
            helper = subprocesses.start(
                __name__, KEEP_MEMORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                process_group=0,
            )  # fmt: skip
            open_.callback(_close, helper)
            running.callback(helper.kill)
            idle.put(helper)
        for found in ordered_map(pool, delegate, jobs, 2 * count):
            shapes += found
    return shapes


def _close(helper: subprocess.Popen) -> None:
    with contextlib.suppress(OSError), helper:  # waits for it; the pipe may hold unsent data
        pass


def _ask(helper: subprocess.Popen, job: Job) -> Iterator[list[Shape]]:
    """Has a helper write one shard; yields the shapes of its images, several at a time."""
    paths, part = job
    # Helpers do not need the patients.
    examples = [dataclasses.asdict(dataclasses.replace(e, patient_id='')) for e in part]
    with contextlib.suppress(BrokenPipeError):  # then no answer comes
        print(json.dumps([paths, examples]), file=helper.stdin, flush=True)
    for line in helper.stdout or ():
        kind, value = json.loads(line)
        if kind == 'written':
            return
        if kind == 'shapes':
            yield [tuple(shape) for shape in value]
        else:
            raise {'UsageError': UsageError, 'OSError': OSError}[kind](value)
    raise UsageError(
        f'a process that decodes images ended (status {helper.wait()}), perhaps out of memory; '
        'see its output above, and run the same command again'
    )


def _answer_requests() -> None:
    """The helper process: writes a shard for each line of standard input until that ends."""
    for signum in (signal.SIGINT, signal.SIGTERM):  # the caller handles them and ends this process
        signal.signal(signum, signal.SIG_IGN)
    cv2.setNumThreads(1)
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # output of decoders must not mix with the answers

    def answer(kind: str, value: object = None) -> None:
        try:
            print(json.dumps([kind, value]), file=answers, flush=True)
        except BrokenPipeError:
            os._exit(1)  # the caller has ended

    for line in sys.stdin:
        paths, examples = json.loads(line)
        paths = {int(size): path for size, path in paths.items()}
        folder = pathlib.Path(next(iter(paths.values()))).parent
        dicom.large_image_lock = locks.LockFile(folder / 'turn.lock', wait=True)
        fitted = (_fit(_example(fields), tuple(paths)) for fields in examples)
        try:
            shapes = _shard(paths, fitted)
            while some := list(itertools.islice(shapes, _AT_A_TIME)):
                answer('shapes', some)
            answer('written')
        except (UsageError, OSError) as error:
            answer('UsageError' if isinstance(error, UsageError) else 'OSError', str(error))


def _example(fields: dict) -> Example:
    """The inverse of `dataclasses.asdict` and JSON."""
    shape = fields['mask_shape']
    return Example(**{
        **fields, 'rles': tuple(fields['rles']), 'mask_shape': shape and tuple(shape)
    })  # fmt: skip


class _Fitted(NamedTuple):
    records: list[bytes]  # one per size
    shape: Shape


def _shard(paths: dict[int, str], fitted: Iterable[_Fitted]) -> Iterator[Shape]:
    """Writes one shard of each size; yields the shape of each image after writing it."""
    # One record per group, so that random access reads one record; compression would be slow.
    writers = [ArrayRecordWriter(path, 'group_size:1,uncompressed') for path in paths.values()]
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


if __name__ == '__main__':
    with silence_libraries():
        _answer_requests()
