"""Everything that is measured on a GPU or TPU, with one command, within a time limit.

    python -m benchmarks.run accelerator --out=DIR                            one GPU, 40 minutes
    python -m benchmarks.run accelerator --out=DIR --sizes 32 --width 4 --batch-size 2 \\
      --steps 1 --repeats 1 --images 24 --drawn-size 64                       anywhere

Each part is a benchmark of its own in a process of its own, in the order of what is most worth
knowing: a training step beside compiled PyTorch, prediction in three precisions, both stages from
DICOM files to a submission (of few images), a trace of ten steps of the second stage. DIR gets a
JSON file of each part, its log, and accelerator.md, a page of all tables. A part that fails is
named there, and so is one that the time is too short for; the same command tries these again, and
keeps what has been measured.
"""

import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.report import Report, table

KINDS = ('pneumojax', 'pneumojax, augmented', 'PyTorch, compiled')
LEAST = 60  # seconds that a part needs at least: with less left, it is not begun


class Part(NamedTuple):
    """One measurement."""

    name: str  # of its files
    title: str
    benchmark: str  # of `benchmarks.run`
    arguments: Sequence[str]


def add_options(parser) -> None:
    """The options of `benchmarks.run accelerator`."""
    parser.add_argument('--out', type=pathlib.Path, required=True, help='the folder to fill')
    parser.add_argument('--minutes', type=float, default=40, help='for all parts (40)')
    parser.add_argument('--sizes', type=int, nargs='+', default=[256, 512, 1024], help='pixels')
    parser.add_argument(
        '--dtypes', nargs='+', default=['bfloat16', 'float32'],
        help='of the training steps; the first one comes before all else',
    )  # fmt: skip
    parser.add_argument('--batch-size', type=int, default=16, help='default: %(default)s')
    parser.add_argument('--width', type=int, default=64, help='64 is ResNet34')
    parser.add_argument('--steps', type=int, default=20, help='timed together')
    parser.add_argument('--repeats', type=int, default=3, help='of these steps; the median counts')
    parser.add_argument('--images', type=int, default=1000, help='of the stages (1000)')
    parser.add_argument('--drawn-size', type=int, default=1024, help='of these images, pixels')


def measure(options) -> Report:
    """A row for each part: whether it was measured, and in what time."""
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    rows, pages = [], []
    for part in parts(options, out):
        began = time.monotonic()
        state = _state(part, out, end - began)
        rows.append({'part': part.title, 'state': state, 's': time.monotonic() - began})
        pages.append(_page(part, out, state))
        heading = f'# Measured on an accelerator\n\n{table(rows)}\n'
        (out / 'accelerator.md').write_text('\n'.join([heading, *pages]))
    return Report(rows, [f'All tables: {options.out / "accelerator.md"}'])


def parts(options, out: pathlib.Path) -> Iterator[Part]:
    """What is measured, the most important first.

    Args:
      options: see `add_options`.
      out: the folder that holds the images of the stages, for the profile.
    """
    sizes, width = options.sizes, ['--width', str(options.width)]
    middle = sizes[min(1, len(sizes) - 1)]
    ordered = [middle, *(size for size in sizes if size != middle)]
    step = ['--batch-size', str(options.batch_size), *width,
            '--steps', str(options.steps), '--repeats', str(options.repeats)]  # fmt: skip

    def train_step(size: int, dtype: str) -> Part:
        return Part(
            f'train_step_{size}_{dtype}', f'Training step, {size} px, {dtype}', 'train_step',
            ['--sizes', str(size), '--dtypes', dtype, *step, '--kinds', *KINDS],
        )  # fmt: skip

    first = options.dtypes[0]
    yield train_step(middle, first)
    for size in dict.fromkeys((middle, sizes[-1])):
        yield Part(
            f'predict_{size}', f'Prediction, {size} px, flipped too', 'predict',
            ['--only=jax,torch', '--files=0', '--fresh=0', '--size', str(size), *width,
             '--batch', str(options.batch_size), '--rounds', str(options.repeats)],
        )  # fmt: skip
    stages = [str(size) for size in (sizes[0], middle)]
    yield Part(
        'end_to_end', 'Both stages, from DICOM files to a submission', 'end_to_end',
        ['--images', str(options.images), '--drawn-size', str(options.drawn_size), *width,
         '--sizes', *stages, '--predicted', str(max(1, options.images // 10)),
         '--work', str(out / 'work')],
    )  # fmt: skip
    yield Part(
        'profile', f'Where the time of training steps goes, {middle} px', 'profile_steps',
        ['--images', str(options.images), '--drawn-size', str(options.drawn_size), *width,
         '--size', str(middle), '--batch-size', str(options.batch_size),
         '--work', str(out / 'work')],
    )  # fmt: skip
    for dtype in options.dtypes:
        for size in ordered:
            if (size, dtype) != (middle, first):
                yield train_step(size, dtype)


def _state(part: Part, out: pathlib.Path, left: float) -> str:
    """Measures a part, if it is not yet: 'measured', or in words why it is not."""
    if (out / f'{part.name}.json').exists():
        return 'measured before'
    if left < LEAST:
        return f'skipped: {max(0, left):.0f} s left; run the same command again'
    _clear(out / 'work')
    print(f'{part.title} ...', flush=True)
    unfinished = out / f'{part.name}.unfinished'
    failure = _call(
        [sys.executable, '-m', 'benchmarks.run', part.benchmark, *part.arguments,
         '--json', str(unfinished)],
        out / f'{part.name}.log', left, _environment(part, out),
    )  # fmt: skip
    if failure:
        return failure
    unfinished.replace(out / f'{part.name}.json')
    return 'measured'


def _environment(part: Part, out: pathlib.Path) -> dict[str, str]:
    """Parts share compiled programs, but for those whose compilation is timed too."""
    if part.benchmark == 'train_step':
        return dict(os.environ)
    return {'JAX_COMPILATION_CACHE_DIR': str(out / 'compiled'), **os.environ}


def _clear(work: pathlib.Path) -> None:
    """Removes what an unfinished part left, but for the drawn images: it would be continued."""
    for path in work.iterdir() if work.exists() else ():
        if path.name not in ('siim', 'profiled'):
            shutil.rmtree(path)
    if not any((work / 'profiled').rglob('*.trace.json.gz')):
        shutil.rmtree(work / 'profiled', ignore_errors=True)


def _call(
    command: Sequence[str], log: pathlib.Path, left: float, environment: Mapping[str, str]
) -> str | None:
    """Runs a command, with its output in a file; why it failed, or None."""
    with log.open('w') as file:
        # In a group of its own, as it starts processes that would outlive it.
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, env=environment
        )
        try:
            status = process.wait(timeout=left)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return f'failed: not done in the {left / 60:.0f} min that were left'
    if status:
        lines = log.read_text(errors='replace').strip().splitlines() or ['']
        return f'failed, see {log.name}: {lines[-1][:100]}'
    return None


def _page(part: Part, out: pathlib.Path, state: str) -> str:
    """The part's section of accelerator.md."""
    arguments = [argument.replace(str(out), 'DIR') for argument in part.arguments]
    command = shlex.join(['python', '-m', 'benchmarks.run', part.benchmark, *arguments])
    head = f'## {part.title}\n\n```bash\n{command}\n```\n'
    path = out / f'{part.name}.json'
    if not path.exists():
        return f'{head}\n{state}\n'
    content = json.loads(path.read_text())
    machine, versions = content['machine'], content['versions']
    where = (
        f'{", ".join(machine["accelerators"]) or "no accelerator"}; {machine["processor"]}, '
        f'{machine["cores"]} cores; '
        + ', '.join(f'{name} {versions[name]}' for name in ('jax', 'torch') if name in versions)
    )
    notes = [note.replace(str(out), 'DIR') for note in content['notes']]
    rows = [table(content['rows'])] if content['rows'] else []
    return '\n\n'.join([head.rstrip(), *rows, *notes, where]) + '\n'
