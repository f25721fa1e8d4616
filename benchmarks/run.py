"""Runs one benchmark, prints its table and writes it as JSON with versions and hardware.

    python -m benchmarks.run NAME [options]        python -m benchmarks.run NAME --help

A benchmark is a module with `add_options(parser)` and `measure(options) -> Report`. It needs this
checkout (its `configs` are not installed); run it from the checkout's root.
"""

import argparse
import importlib
import json
import pathlib
import sys

from benchmarks.report import describe_machine, table, versions
from pneumojax.errors import UsageError
from pneumojax.system import signals
from pneumojax.system.progress import show_log

BENCHMARKS = {
    'accelerator': 'all that is measured on a GPU or TPU, within a time limit: every table at once',
    'agreement': 'masks of the exported network beside those of JAX in float32',
    'compile': 'every program for a chip that need not be here: memory, work, roofline',
    'end_to_end': 'from DICOM files through both stages to a submission, every part',
    'pipeline': 'from DICOM files to records and from records to batches, per core',
    'plausibility': 'which pictures get the note that they are no chest radiographs',
    'predict': 'one image, a folder, a first mask: JAX, the exported network, PyTorch',
    'predict_memory': 'does memory grow with the folder that is predicted',
    'profile_steps': 'where the time of training steps goes, by kind of operation, from a trace',
    'train_step': 'a training step beside the same network in PyTorch: time, TFLOP/s, memory',
    'threshold_search': 'how long the search for the rule takes',
}


def main(arguments: list[str]) -> int:
    """Runs the benchmark that the first argument names; the exit status."""
    if not arguments or arguments[0] not in BENCHMARKS:
        print(__doc__)
        print('\n'.join(f'{name:16} {what}' for name, what in BENCHMARKS.items()))
        return 0 if arguments and arguments[0] in ('-h', '--help') else 2
    name = arguments[0]
    module = importlib.import_module(f'benchmarks.{name}')
    parser = argparse.ArgumentParser(
        prog=f'python -m benchmarks.run {name}', description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        '--json', type=pathlib.Path, default=pathlib.Path('runs', 'benchmarks', f'{name}.json'),
        help='the file to write (default: %(default)s)',
    )  # fmt: skip
    module.add_options(parser)
    options = parser.parse_args(arguments[1:])
    show_log()
    report = module.measure(options)
    print(f'\npython -m benchmarks.run {" ".join(arguments)}\n')
    print(table(report.rows))
    for title, rows in report.more.items():
        print(f'\n{title}\n\n{table(rows)}')
    for note in report.notes:
        print(f'\n{note}')
    options.json.parent.mkdir(parents=True, exist_ok=True)
    content = {
        'benchmark': name,
        'command': ['python', '-m', 'benchmarks.run', *arguments],
        'options': {key: str(value) for key, value in vars(options).items()},
        'machine': describe_machine(),
        'versions': versions(),
        'rows': report.rows,
        **({'more': dict(report.more)} if report.more else {}),
        'notes': report.notes,
    }
    options.json.write_text(json.dumps(content, indent=2) + '\n')
    print(f'\nwritten to {options.json}')
    return 0


if __name__ == '__main__':
    signals.end_on_terminate()  # as Ctrl-C does: what was started ends too
    try:
        sys.exit(main(sys.argv[1:]))
    except UsageError as error:
        print(f'benchmarks: {error}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        print('benchmarks: interrupted', file=sys.stderr)
        sys.exit(getattr(error, 'status', 130))
