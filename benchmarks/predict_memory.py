"""Does memory grow with the folder that is predicted?

    python -m benchmarks.predict_memory [--images=2000]

Draws phantoms, predicts them with a narrow network of random weights (memory does not depend on
what it has learned), and prints the resident memory after every 200 files.
"""

import argparse
import pathlib
import tempfile

import jax

from configs import base
from pneumojax.data import phantom
from pneumojax.inference.predict import Options, predict
from pneumojax.models import build
from pneumojax.outputs.journal import Journal
from pneumojax.run import Run


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
    with run.checkpointer(keep=1) as checkpointer:
        checkpointer.save_checkpointables(0, jax.device_get(build.initial_variables(config)))
    rule = {'top': 0.5, 'area': 0, 'bottom': 0.5, 'reference_pixels': 1024 * 1024}
    run.write_json(
        'thresholds.json', {**rule, 'weights': 'last', 'flips': [], 'step': 0, 'image_size': 64}
    )
    return run


def main() -> None:
    """Prints files done and MiB, a line for every 200 files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=2000)
    images = parser.parse_args().images
    levels = []
    add = Journal.add

    def counted(self, row):
        add(self, row)
        counted.files += 1
        if counted.files % 200 == 0:
            levels.append((counted.files, resident_mib()))

    counted.files = 0
    Journal.add = counted
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        phantom.write_dataset(
            root / 'phantoms', num_images=images, size=128, seed=5, positive_share=0.3
        )
        run = make_run(root / 'run')
        status = predict([run], str(root / 'phantoms'), str(root / 'out'), Options(heatmap=True))
    print(f'exit status {status}')
    for files, level in levels:
        print(f'{files:6} files {level:8.0f} MiB')
    print(f'after the first 200, the rest added {levels[-1][1] - levels[0][1]:.0f} MiB')


if __name__ == '__main__':
    main()
