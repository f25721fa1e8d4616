"""From DICOM files through both stages to a submission: each part's time.

    python -m benchmarks.run end_to_end                    12,047 phantoms, two epochs a stage
    python -m benchmarks.run end_to_end --images 60 --width 16 --sizes 64 128     anywhere

The configs are `configs/stage1.py` and `stage2.py` from random weights, with fewer epochs. What the
whole schedule of 2ST-UNet takes on SIIM's numbers (12,047 images, a fifth of them held out, 80 and
60 epochs, a prediction of 1,372) is projected from the measured parts: seconds a step times steps,
and seconds an image times images for the rest; compilation counts once. The files are predicted
twice and the second time counts. Epochs of a few steps give no steady time: draw enough images.
"""

import contextlib
import pathlib
import tempfile
import time
from collections import defaultdict
from unittest import mock

import numpy as np

from benchmarks.report import Report
from configs import stage1, stage2
from pneumojax.data import pipeline
from pneumojax.data.phantoms import phantom
from pneumojax.evaluation import evaluate as evaluate_lib
from pneumojax.experiments import stages
from pneumojax.prediction.options import Options
from pneumojax.prediction.predict import predict
from pneumojax.runs.run import Run
from pneumojax.system import devices
from pneumojax.training import loop

SIIM, SIIM_TEST, HELD_OUT = 12_047, 1_372, 1 / 5


def add_options(parser) -> None:
    """The options of `benchmarks.run end_to_end`."""
    parser.add_argument('--images', type=int, default=SIIM, help='default: %(default)s')
    parser.add_argument('--epochs', type=int, default=2, help='of each stage, 2 or more')
    parser.add_argument('--drawn-size', type=int, default=1024, help='of phantoms, pixels')
    parser.add_argument('--sizes', type=int, nargs=2, default=[256, 512], help='of the stages')
    parser.add_argument('--width', type=int, default=64, help='64 is ResNet34')
    parser.add_argument('--dtype', default='bfloat16', help='default: %(default)s')
    parser.add_argument('--on-device', action='store_true', help='as config.data.on_device')
    parser.add_argument('--predicted', type=int, default=SIIM_TEST, help='images at the end')
    parser.add_argument('--work', type=pathlib.Path, help='a folder to keep (default: temporary)')


class Clock:
    """Seconds by part."""

    def __init__(self):
        self.seconds, self.calls = defaultdict(float), defaultdict(int)
        self.compiled = defaultdict(float)  # seconds of a part that went into first calls

    @property
    def compiling(self) -> float:
        """Seconds of first calls so far."""
        return self.seconds['compiling']

    def scaled(self, name: str, factor: float) -> float:
        """A part's seconds if it had `factor` times the work, compiled once all the same."""
        once = self.compiled[name]
        return once + (self.seconds[name] - once) * factor

    def first_calls(self):
        """A patch that times the first calls of compiled functions as 'compiling'."""

        def waiting(what):
            return self.part('compiling')

        return mock.patch.object(devices, 'waiting', waiting)

    @contextlib.contextmanager
    def part(self, name: str):
        """Adds the time of a block to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start
            self.calls[name] += 1

    def around(self, owner, attribute: str, name: str):
        """A patch that adds every call of a function to a part."""
        function = getattr(owner, attribute)

        def timed(*args, **kwargs):
            with self.part(name):
                compiling = self.compiling
                try:
                    return function(*args, **kwargs)
                finally:
                    self.compiled[name] += self.compiling - compiling

        return mock.patch.object(owner, attribute, timed)


def measure(options) -> Report:
    """A row for every part: what was measured, and what it would be for the whole schedule."""
    with contextlib.ExitStack() as stack:
        work = options.work or stack.enter_context(tempfile.TemporaryDirectory())
        return _measure(options, pathlib.Path(work))


def _measure(options, work: pathlib.Path) -> Report:
    clock, rows = Clock(), []
    configs = [_config(options, work, i) for i in (0, 1)]
    with clock.part('draw'):
        phantom.write_dataset(work / 'siim', num_images=options.images,
                              size=options.drawn_size, seed=0)  # fmt: skip

    def row(part, seconds, whole):
        rows.append({'part': part, 'measured s': seconds, 'whole schedule min': whole / 60})

    both = configs[0].copy_and_resolve_references()
    both.stages = {'stage1': {}, 'stage2': {'image_size': options.sizes[1]}}
    with clock.part('prepare'):
        stages.prepare(both, work / 'prepared')
    row('prepare, both sizes', clock.seconds['prepare'],
        clock.seconds['prepare'] / options.images * SIIM)  # fmt: skip
    notes = [
        f'{options.images} phantoms of {options.drawn_size} px, drawn in '
        f'{clock.seconds["draw"]:.1f} s, which is in no row.',
        'The right column is a projection, see --help.',
    ]
    for i, config in enumerate(configs):
        notes.append(_train(config, Run(work / config.name), i, row))
    config, run = configs[1], Run(work / 'stage2')
    with clock.first_calls(), clock.around(evaluate_lib, 'evaluate', 'evaluate'):
        evaluate_lib.evaluate(config, run)
    held_out = len(run.read_json('split.json')['validation'])
    row(f'evaluate {held_out} images', clock.seconds['evaluate'],
        clock.scaled('evaluate', SIIM * HELD_OUT / held_out))  # fmt: skip
    folder = _some_files(work, min(options.predicted, options.images))
    predict([run], str(folder), str(work / 'predicted before'), Options())
    with clock.part('predict'):
        predict([run], str(folder), str(work / 'predicted'), Options())
    count = len(list(folder.iterdir()))
    row(f'predict {count} files, all outputs', clock.seconds['predict'],
        clock.seconds['predict'] / count * SIIM_TEST)  # fmt: skip
    lines = (work / 'predicted' / 'submission.csv').read_text().splitlines()
    assert len(lines) > count
    row('all', *(sum(r[key] * factor for r in rows)
                 for key, factor in (('measured s', 1), ('whole schedule min', 60))))  # fmt: skip
    return Report(rows, notes)


def _config(options, work: pathlib.Path, stage: int):
    config = (stage1, stage2)[stage].get_config()
    config.image_size, config.num_epochs = options.sizes[stage], options.epochs
    config.averaging.start = options.epochs - 1
    config.model.pretrained, config.model.width = '', options.width
    config.model.dtype, config.data.on_device = options.dtype, options.on_device
    config.data.root, config.data.cache = str(work / 'siim'), str(work / 'cache')
    config.log_every_steps = 1
    if stage:
        config.init_from = str(work / 'stage1')
    return config


def _train(config, run: Run, stage: int, row) -> str:
    """Trains one stage and adds its rows; what share of the steps' time went into waiting."""
    clock, batches = Clock(), pipeline.train_batches

    def timed_batches(*args, **kwargs):
        source = batches(*args, **kwargs)
        while True:
            with clock.part('waiting'):
                batch = next(source, None)
            if batch is None:
                return
            yield batch

    with (
        mock.patch.object(pipeline, 'train_batches', timed_batches),
        clock.first_calls(),
        clock.around(loop.Trainer, '_validate', 'validation'),
        clock.around(loop.Trainer, '_averaged', 'recalibration'),
        clock.around(loop.Trainer, '_save', 'checkpoints'),
        clock.part('all'),
    ):
        loop.train(config, run)
    train = [r for r in run.metrics() if r['split'] == 'train']
    epochs, full = config.num_epochs, (stage1, stage2)[stage].get_config()
    # An epoch's first two lines hold what lies between epochs.
    steady = [r['seconds'] for i, r in enumerate(train)
              if i > 1 and train[i - 2]['epoch'] == r['epoch']]  # fmt: skip
    step = float(np.mean(steady)) if steady else train[-1]['seconds']
    split = run.read_json('split.json')
    held_out, trained = len(split['validation']), len(split['train'])
    steps = int(SIIM * (1 - HELD_OUT)) // full.batch_size * full.num_epochs
    name = f'stage {stage + 1} at {config.image_size}'
    seconds = clock.seconds
    training = seconds['all'] - sum(
        seconds[k] for k in ('validation', 'recalibration', 'checkpoints')
    )
    row(f'{name}: {len(train)} steps, with compilation', training, step * steps)
    looks = SIIM * HELD_OUT / held_out * full.num_epochs / epochs
    row(f'{name}: validation', seconds['validation'], clock.scaled('validation', looks))
    row(f'{name}: BatchNorm recalibration', seconds['recalibration'],
        clock.scaled('recalibration', SIIM * (1 - HELD_OUT) / trained))  # fmt: skip
    row(f'{name}: checkpoints', seconds['checkpoints'],
        seconds['checkpoints'] / epochs * full.num_epochs)  # fmt: skip
    waiting = seconds['waiting'] / clock.calls['waiting'] / step
    if len(steady) < 10:
        return f'{name}: too few steps for a steady time; its projection says nothing.'
    return (
        f'{name}: {step:.3g} s a step of {config.batch_size}, {config.batch_size / step:.3g} '
        f'images/s; the host waited for its batches for {waiting:.1%} of a step.'
    )


def _some_files(work: pathlib.Path, count: int) -> pathlib.Path:
    folder = work / 'to_predict'
    folder.mkdir(exist_ok=True)
    for path in sorted((work / 'siim').rglob('*.dcm'))[:count]:
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.absolute())
    return folder
