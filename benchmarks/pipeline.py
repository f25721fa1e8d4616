"""From DICOM files to records, and from records to batches on the device, in images per second.

    python -m benchmarks.run pipeline [--root=DIR] [--images=400]

`prepare` is compared with a bare decode loop on all cores (pydicom finds the frame, OpenCV decodes
it, nothing is kept), in threads of one process and in processes; batches are compared with a
PyTorch DataLoader with albumentations on the same files. The processes of the bare loop are started
in advance and keep freed memory; otherwise glibc returns the memory of some images to the system,
and the same loop is up to a third slower. `pixel_array` is the loop with
the decoder that pydicom picks.

All files are read once in advance, so that no disk is measured. Our augmentation runs on the device
inside the training step; that of albumentations runs in the loader, as is usual with PyTorch.
"""

import argparse
import functools
import multiprocessing
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any
from unittest import mock

import cv2
import jax
import numpy as np
import pydicom
from pydicom.encaps import generate_frames

from benchmarks.held_memory import give_up, hold
from benchmarks.report import Report, Usage, watch, watch_in_turn
from pneumojax.data import pipeline, sampling
from pneumojax.data.cache import records, shards
from pneumojax.data.datasets import siim
from pneumojax.data.datasets.example import Example
from pneumojax.data.phantoms import phantom
from pneumojax.system.parallel import cores

BATCH = 16
KEEP_MEMORY = {
    'MALLOC_MMAP_THRESHOLD_': str(32 << 20),
    'MALLOC_TRIM_THRESHOLD_': str(256 << 20),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `benchmarks.run pipeline`."""
    parser.add_argument(
        '--root', type=pathlib.Path, help="a data set in Kaggle's layout (default: drawn phantoms)"
    )
    parser.add_argument('--images', type=int, default=400, help='default: %(default)s')
    parser.add_argument('--drawn-size', type=int, default=1024, help='of phantoms, pixels')
    parser.add_argument('--sizes', type=int, nargs='+', default=[256, 512], help='of the records')
    parser.add_argument('--repeats', type=int, default=5, help='of every measurement')
    parser.add_argument(
        '--held',
        action='store_true',
        help='write records to memory that is held already, see held_memory',
    )
    parser.add_argument('--no-torch', action='store_true', help='leave out the DataLoader')


def measure(options: argparse.Namespace) -> Report:
    """Measures one row for each part of the pipeline."""
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        root = options.root
        if root is None:
            root = work / 'phantoms'
            phantom.write_dataset(root, num_images=options.images, size=options.drawn_size, seed=0)
        examples = siim.find(root).examples[: options.images]
        rows, notes = [], [
            'per core: images per second of processor time, over all threads and processes. '
            'of bare: relative to the faster bare decode loop.'
        ]  # fmt: skip

        def add(part: str, call: Callable[[], object], count: int = len(examples)) -> None:
            rows.append(_row(part, watch(call, options.repeats), count))

        rows += _from_files(examples, options, work)
        for size in options.sizes:
            _from_records(add, records.prepare(work / 'cache', examples, size), size)
        if not options.no_torch:
            notes += _from_torch(add, examples, work, options.sizes[-1])
        return Report(rows, notes)


def _row(part: str, usage: Usage, count: int) -> dict[str, Any]:
    rate = count / usage.seconds
    return {
        'part': part, 'images/s': rate, 'per core': rate / max(usage.own_cores, 1e-9),
        'of bare': None, 'own cores': usage.own_cores, 'other cores': usage.other_cores,
    }  # fmt: skip


def _from_files(
    examples: Sequence[Example], options: argparse.Namespace, work: pathlib.Path
) -> list[dict[str, Any]]:
    paths = [e.path for e in examples]
    for path in paths:
        pathlib.Path(path).read_bytes()
    ways = {
        f'prepare {" and ".join(map(str, sizes))}': sizes
        for sizes in [*([size] for size in options.sizes), options.sizes]
    }
    folder, held = work / 'cache', work / 'held'

    def ready(name: str) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        if options.held and name in ways:
            hold(held, len(paths) * sum(map(shards.record_bytes, ways[name])))

    def prepare(sizes: Sequence[int]) -> None:
        with give_up(held, lambda: _bytes_in(folder)) if options.held else nullcontext():
            records.prepare(folder, examples, sizes[0], sizes[1:])

    calls = {name: functools.partial(prepare, sizes) for name, sizes in ways.items()}
    with _workers(1) as one, _workers(cores()) as several:
        bare = {
            'bare decode, threads': lambda: one.submit(_in_threads, paths).result(),
            'bare decode, processes': lambda: _in_processes(several, bare_decode, paths),
        }
        for call in bare.values():
            call()  # imports take a second
        taken = watch_in_turn({**bare, **calls}, options.repeats, ready)
        some = paths[: max(cores(), len(paths) // 8)]
        slow = watch(lambda: _in_processes(several, pixel_array, some), 1)
    rows = {name: _row(name, usage, len(paths)) for name, usage in taken.items()}
    fastest = max(rows[name]['images/s'] for name in bare)
    for name in calls:
        rows[name]['of bare'] = rows[name]['images/s'] / fastest
    return [*rows.values(), _row('pixel_array, processes', slow, len(some))]


def _bytes_in(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.glob('*/*.array_record'))


def _workers(count: int) -> ProcessPoolExecutor:
    """Processes that keep freed memory; spawned, as only a new process reads these variables."""
    context = multiprocessing.get_context('spawn')
    with mock.patch.dict(os.environ, KEEP_MEMORY):
        pool = ProcessPoolExecutor(count, mp_context=context)
        _exhaust(pool.map(int, range(64 * count)))  # starts all of them
    return pool


def _in_threads(paths: Sequence[str]) -> None:
    with ThreadPoolExecutor(cores()) as threads:
        _exhaust(threads.map(bare_decode, paths))


def _in_processes(
    pool: ProcessPoolExecutor, function: Callable[[str], None], paths: Sequence[str]
) -> None:
    _exhaust(pool.map(function, paths, chunksize=8))


def pixel_array(path: str) -> None:
    """Reads one file and has pydicom decode its pixels."""
    _ = pydicom.dcmread(path).pixel_array


def bare_decode(path: str) -> None:
    """Reads one file and decodes its pixels."""
    dataset = pydicom.dcmread(path)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_UNCHANGED)
    else:
        _ = dataset.pixel_array


def _from_records(add: Callable[..., None], cache: records.Records, size: int) -> None:
    epochs = max(1, 2000 // len(cache))
    plan = sampling.make_plan(
        np.zeros(len(cache), bool), num_epochs=epochs, batch_size=min(BATCH, len(cache)), seed=0
    )
    everyone, count = np.arange(len(cache)), plan.total_steps * plan.batch_size

    def batches() -> None:
        _exhaust(pipeline.train_batches(cache, everyone, plan))

    def on_device() -> None:
        for batch in pipeline.train_batches(cache, everyone, plan):
            there = jax.device_put(batch)
        jax.block_until_ready(there)

    add(f'records to batches, {size}', batches, count)
    add(f'records to batches on the device, {size}', on_device, count)


def _exhaust(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def _from_torch(
    add: Callable[..., None], examples: Sequence[Example], work: pathlib.Path, size: int
) -> list[str]:
    try:
        from benchmarks import torch_loader
    except ImportError as error:
        return [f'The DataLoader was left out: {error}.']
    cache = records.prepare(work / 'cache', examples, size)
    for part, dataset in torch_loader.ways(examples, cache, size):
        loader = torch_loader.make_loader(dataset, BATCH, cores())
        add(
            f'PyTorch DataLoader, {part}, {size}',
            lambda loader=loader: _exhaust(loader),
            len(dataset),
        )
    return ['The DataLoader has one worker process per core, started in advance.']
