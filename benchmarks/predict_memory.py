"""Whether memory grows with the size of the folder that is predicted.

    python -m benchmarks.run predict_memory [--images=2000]

Draws phantoms, predicts them with a narrow network of random weights (memory does not depend on the
weights), and lists the resident memory after every 200 files.
"""

import pathlib
import tempfile

import jax

from benchmarks.report import Report
from configs import base
from pneumojax.data.phantoms import phantom
from pneumojax.models import build
from pneumojax.prediction.journal import Journal
from pneumojax.prediction.options import Options
from pneumojax.prediction.predict import predict
from pneumojax.runs.run import Run


def resident_mib() -> float:
    """Resident memory of this process, MiB (Linux)."""
    status = pathlib.Path('/proc/self/status').read_text()
    return int(status.split('VmRSS:')[1].split()[0]) / 1024


def make_run(path) -> Run:
    """An untrained narrow run with a rule, so that `predict` accepts it."""
    config = base.get_config()
    config.name, config.image_size = 'untrained', 64
    config.model.width, config.model.channels, config.model.stage_sizes = 4, 1, (1, 1, 1, 1)
    run = Run(path)
    run.start(config)
    with run.checkpoints.writer(keep=1) as checkpointer:
        checkpointer.save_checkpointables(0, jax.device_get(build.initial_variables(config)))
    rule = {'top': 0.5, 'area': 0, 'bottom': 0.5, 'reference_pixels': 1024 * 1024}
    run.write_json(
        'thresholds.json', {**rule, 'weights': 'last', 'flips': [], 'step': 0, 'image_size': 64}
    )
    return run


def add_options(parser) -> None:
    """The options of `benchmarks.run predict_memory`."""
    parser.add_argument('--images', type=int, default=2000, help='default: %(default)s')


def measure(options) -> Report:
    """A row of files done and MiB for every 200 files."""
    levels = []
    add = Journal.add

    def counted(self, row):
        add(self, row)
        counted.files += 1
        if counted.files % 200 == 0 or counted.files == options.images:
            levels.append({'files': counted.files, 'resident MiB': resident_mib()})

    counted.files = 0
    Journal.add = counted
    try:
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            phantom.write_dataset(
                root / 'phantoms', num_images=options.images, size=128, seed=5, positive_share=0.3
            )
            run = make_run(root / 'run')
            predict([run], str(root / 'phantoms'), str(root / 'out'), Options(heatmap=True))
    finally:
        Journal.add = add
    added = levels[-1]['resident MiB'] - levels[0]['resident MiB']
    return Report(levels, [f'after the first {levels[0]["files"]}, the rest added {added:.0f} MiB'])
