"""From DICOM files to records, and from records to batches on the device, in images per second.

    python -m benchmarks.run pipeline [--root=DIR] [--images=400]

Beside the bare decode loop (pydicom finds the frame, OpenCV decodes it, nothing is kept) on all
cores, and beside a PyTorch DataLoader with albumentations on the same files. Everything is read
once before, so that no disk is measured. Augmentation runs on the device here, inside the training
step; albumentations' runs in the loader, which is what feeding PyTorch takes.
"""

import itertools
import multiprocessing
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import cv2
import jax
import numpy as np
import pydicom
from pydicom.encaps import generate_frames

from benchmarks.report import Report, cores, watch
from pneumojax.data import phantom, pipeline, records, sampling, siim

BATCH = 16


def add_options(parser) -> None:
    """The options of `benchmarks.run pipeline`."""
    parser.add_argument(
        '--root', type=pathlib.Path, help="a data set in Kaggle's layout (default: drawn phantoms)"
    )
    parser.add_argument('--images', type=int, default=400, help='default: %(default)s')
    parser.add_argument('--drawn-size', type=int, default=1024, help='of phantoms, pixels')
    parser.add_argument('--sizes', type=int, nargs='+', default=[256, 512], help='of the records')
    parser.add_argument('--repeats', type=int, default=5, help='of every measurement')
    parser.add_argument('--no-torch', action='store_true', help='leave the DataLoader out')


def measure(options) -> Report:
    """One row for each part of the way."""
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        root = options.root
        if root is None:
            root = work / 'phantoms'
            phantom.write_dataset(root, num_images=options.images, size=options.drawn_size, seed=0)
        examples = siim.find(root).examples[: options.images]
        rows, notes = [], [
            'per core: images by the seconds that all threads and processes together kept a core '
            'busy. of bare: by the images/s of the faster bare decode loop.'
        ]  # fmt: skip

        def add(part: str, call: Callable[[], object], count: int = len(examples)) -> float:
            usage = watch(call, options.repeats)
            rate = count / usage.seconds
            rows.append({
                'part': part, 'images/s': rate, 'per core': rate / max(usage.own_cores, 1e-9),
                'of bare': None, 'own cores': usage.own_cores, 'other cores': usage.other_cores,
            })  # fmt: skip
            return rate

        _from_files(add, rows, examples, options.sizes, work)
        for size in options.sizes:
            _from_records(add, records.prepare(work / 'cache', examples, size), size)
        if not options.no_torch:
            notes += _from_torch(add, examples, work, options.sizes[-1])
        return Report(rows, notes)


def _from_files(add, rows, examples, sizes, work) -> None:
    paths = [e.path for e in examples]
    for path in paths:
        pathlib.Path(path).read_bytes()
    context = multiprocessing.get_context('forkserver')
    with ProcessPoolExecutor(cores(), mp_context=context) as processes:
        list(processes.map(bare_decode, paths, chunksize=8))  # imports take a second
        with ThreadPoolExecutor(cores()) as threads:
            bare = max(
                add('bare decode, threads', lambda: list(threads.map(bare_decode, paths))),
                add(
                    'bare decode, processes',
                    lambda: list(processes.map(bare_decode, paths, chunksize=8)),
                ),
            )

    for chosen in [*([size] for size in sizes), sizes]:
        folders = (work / f'cache{i}' for i in itertools.count())

        def prepare(chosen=chosen, folders=folders):
            records.prepare(next(folders), examples, chosen[0], chosen[1:])

        rate = add(f'prepare {" and ".join(map(str, chosen))}', prepare)
        rows[-1]['of bare'] = rate / bare
        for folder in work.glob('cache*'):  # not while the clock runs
            shutil.rmtree(folder)


def bare_decode(path: str) -> None:
    """Reads one file and decodes its pixels."""
    dataset = pydicom.dcmread(path)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_UNCHANGED)
    else:
        _ = dataset.pixel_array


def _from_records(add, cache: records.Records, size: int) -> None:
    epochs = max(1, 2000 // len(cache))
    plan = sampling.make_plan(
        np.zeros(len(cache), bool), num_epochs=epochs, batch_size=min(BATCH, len(cache)), seed=0
    )
    everyone, count = np.arange(len(cache)), plan.total_steps * plan.batch_size

    def batches():
        _exhaust(pipeline.train_batches(cache, everyone, plan))

    def on_device():
        for batch in pipeline.train_batches(cache, everyone, plan):
            there = jax.device_put(batch)
        jax.block_until_ready(there)

    add(f'records to batches, {size}', batches, count)
    add(f'records to batches on the device, {size}', on_device, count)


def _exhaust(batches) -> None:
    for _ in batches:
        pass


def _from_torch(add, examples, work, size: int) -> list[str]:
    try:
        from benchmarks import torch_loader
    except ImportError as error:
        return [f'No DataLoader beside them: {error}.']
    cache = records.prepare(work / 'cache', examples, size)
    for part, dataset in torch_loader.ways(examples, cache, size):
        loader = torch_loader.make_loader(dataset, BATCH, cores())
        add(
            f'PyTorch DataLoader, {part}, {size}',
            lambda loader=loader: _exhaust(loader),
            len(dataset),
        )
    return ['The DataLoader has a worker process for each core, started before.']
