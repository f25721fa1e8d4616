"""Shards: files of records, written by threads of this process or by a process for each core.

A record is the image's bytes and then the mask's, eight pixels a byte: fast to read, no parser. The
bytes of a shard follow from its examples and its size alone, whoever writes it.

Reading tags and ArrayRecord's writer hold Python's lock, for the plainest files some tenths of a
millisecond an image, for others more: beyond a few cores more threads do nothing. Large data sets
are written by helper processes, each a shard at a time. The two sides speak in lines
of JSON over pipes: nothing is unpickled.
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

SHARD_SIZE = 256  # records at least; the last shard has what is left
MAX_SHARDS = 128  # each is an open file while it is read
PROCESSES_FROM = 2048  # images; fewer are done before helpers have imported what they need
MAX_PROCESSES = 32  # some 100 MB each
_AT_A_TIME = 16  # images that a helper tells of in one line
# glibc gives each image's memory back to the system and takes it anew, page by page: a third of a
# helper's time. Other systems do not read these.
KEEP_MEMORY = {
    'MALLOC_MMAP_THRESHOLD_': str(32 << 20),
    'MALLOC_TRIM_THRESHOLD_': str(256 << 20),
}

Job = tuple[dict[int, str], Sequence[Example]]  # path of the shard of each size; what goes into it


def encode(image: np.ndarray, mask: np.ndarray) -> bytes:
    """One record. image, mask: uint8 [S, S]; the mask is 0 or 1."""
    return b''.join((np.ascontiguousarray(image).data, np.packbits(mask).data))  # copied once


def record_bytes(size: int) -> int:
    """Length of a record of a size x size image."""
    return size * size + (size * size + 7) // 8


def decode(record: bytes, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `encode`. Raises ValueError when the record has another length."""
    pixels = size * size
    if len(record) != record_bytes(size):
        raise ValueError(f'a record of {len(record)} bytes is not one of a {size} px image')
    data = np.frombuffer(record, np.uint8)
    mask = np.unpackbits(data[pixels:], count=pixels)
    return data[:pixels].reshape(size, size), mask.reshape(size, size)


def write(
    folders: dict[int, pathlib.Path], examples: Sequence[Example]
) -> tuple[list[str], list[tuple[int, int]]]:
    """Decodes every image once and writes its record of each size.

    Args:
      folders: of each size, for its shards.
      examples: in the order of the records.

    Returns:
      names of the shards, the same in every folder; shapes of the images, (H, W).

    Raises:
      UsageError: an image gives no record; of several such images the first.
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


def _by_threads(jobs: Sequence[Job], done: Callable[[int], object]) -> list[tuple[int, int]]:
    shapes = []
    with ThreadPoolExecutor(cores()) as pool:
        everything = ((example, tuple(paths)) for paths, part in jobs for example in part)
        fitted = ordered_map(pool, lambda item: _fit(*item), everything, 4 * cores())
        for paths, part in jobs:
            for shape in _shard(paths, itertools.islice(fitted, len(part))):
                shapes.append(shape)
                done(1)
    return shapes


def _by_processes(
    jobs: Sequence[Job], count: int, done: Callable[[int], object]
) -> list[tuple[int, int]]:
    idle: queue.SimpleQueue = queue.SimpleQueue()
    one_at_a_time, shapes = threading.Lock(), []

    def delegate(job):
        helper, found = idle.get(), []
        try:
            for some in _ask(helper, job):
                found += some
                with one_at_a_time:
                    done(len(some))
        finally:
            idle.put(helper)  # one that has ended, too: whoever takes it must not wait
        return found

    # Helpers are killed first, then the threads that listen to them end, then pipes are closed.
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
    with contextlib.suppress(OSError), helper:  # waits for it; something may be left to be sent
        pass


def _ask(helper: subprocess.Popen, job: Job) -> Iterator[list[tuple[int, int]]]:
    """Has a helper write one shard; yields the shapes of its images, some at a time."""
    paths, part = job
    # Whose images they are does not matter here.
    examples = [dataclasses.asdict(dataclasses.replace(e, patient_id='')) for e in part]
    with contextlib.suppress(BrokenPipeError):  # no answer will come
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
        f'a process that decodes images ended (status {helper.wait()}), perhaps for want of '
        'memory; see what is written above, and run the same command again'
    )


def _answer_requests() -> None:
    """The helper process: a shard for each line of the standard input, until its caller goes."""
    for signum in (signal.SIGINT, signal.SIGTERM):  # for the caller, who then ends this process
        signal.signal(signum, signal.SIG_IGN)
    cv2.setNumThreads(1)
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # whatever decoders print must not come between

    def answer(kind, value=None):
        try:
            print(json.dumps([kind, value]), file=answers, flush=True)
        except BrokenPipeError:
            os._exit(1)  # the caller has gone

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
    records: list[bytes]  # one for each size
    shape: tuple[int, int]


def _shard(paths: dict[int, str], fitted: Iterable[_Fitted]) -> Iterator[tuple[int, int]]:
    """Writes one shard of each size; yields the shape of each image when it is written."""
    # One record per group: random access reads no neighbour. Pixels do not compress fast.
    writers = [ArrayRecordWriter(path, 'group_size:1,uncompressed') for path in paths.values()]
    for item in fitted:
        for writer, record in zip(writers, item.records, strict=True):
            _save(writer.write, record)
        yield item.shape
    for writer in writers:
        _save(writer.close)


def _save(call, *args) -> None:
    """ArrayRecord raises RuntimeError where other writers raise OSError, as on a full disk."""
    try:
        call(*args)
    except RuntimeError as error:
        raise OSError(' '.join(str(error).split())) from None


def _fit(example: Example, sizes: Sequence[int]) -> _Fitted:
    image = example_lib.read(example)
    # Most images have no mask; drawing and fitting an empty one is work all the same.
    mask = example_lib.draw(example, image.shape) if example.positive else None

    def fit_mask(size):
        return np.zeros((size, size), np.uint8) if mask is None else geometry.fit_mask(mask, size)

    records = [encode(geometry.fit_image(image, size), fit_mask(size)) for size in sizes]
    return _Fitted(records, image.shape)


if __name__ == '__main__':
    with silence_libraries():
        _answer_requests()
