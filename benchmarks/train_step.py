"""A training step beside the same network, loss and optimizer in PyTorch: time, TFLOP/s, memory.

    python -m benchmarks.run train_step                                      on an accelerator
    python -m benchmarks.run train_step --sizes 64 --batch-size 4 --width 16 --steps 2   anywhere

Every row is a process of its own (neither library gives memory back), one after the other. Each
step begins with a new uint8 batch in host memory. ResNet34-UNet, BCE + soft Dice over the batch,
SGD with momentum; no augmentation, but in the row that says so: PyTorch's users augment on the CPU,
see the benchmark `pipeline`. PyTorch: channels_last, autocast for bfloat16, `torch.compile` of
network and loss, and eager. TFLOP are those of the convolutions: 2 for each multiplication and
addition of the forward pass, and as many for each gradient: two, but one for the first. The peak
they are a share of is measured too: a large matrix product in JAX, in the row's type (float32 as
the library multiplies it by default, with TF32 on both sides where the device has it). On a CPU
both libraries keep the memory that they free, as training does (`pneumojax.system.allocator`).
"""

import json
import subprocess
import sys

from benchmarks.report import Report

KINDS = ('pneumojax', 'pneumojax, augmented', 'PyTorch, compiled', 'PyTorch, eager')
KEPT = ('peak memory GiB', 'first call s', 'CPU s/image', 'other cores')


def add_options(parser) -> None:
    """The options of `benchmarks.run train_step`."""
    parser.add_argument('--sizes', type=int, nargs='+', default=[256, 512, 1024], help='pixels')
    parser.add_argument('--dtypes', nargs='+', default=['float32', 'bfloat16'])
    parser.add_argument('--batch-size', type=int, default=16, help='default: %(default)s')
    parser.add_argument('--width', type=int, default=64, help='64 is ResNet34')
    parser.add_argument('--steps', type=int, default=20, help='timed together')
    parser.add_argument('--repeats', type=int, default=3, help='of these steps; the median counts')
    parser.add_argument('--kinds', nargs='+', default=KINDS, choices=KINDS)


def measure(options) -> Report:
    """One row for each size, type and kind."""
    rows, notes, peaks = [], [], {}
    for dtype in options.dtypes:
        peaks[dtype] = _case(kind='peak', dtype=dtype)['TFLOP/s']
        notes.append(f'Measured peak in {dtype}: {peaks[dtype]:.3g} TFLOP/s.')
    for size in options.sizes:
        for dtype in options.dtypes:
            rates = {}
            for kind in options.kinds:
                row = {'size': size, 'dtype': dtype, 'kind': kind}
                result = _case(
                    kind=kind, size=size, dtype=dtype, batch=options.batch_size,
                    width=options.width, steps=options.steps, repeats=options.repeats,
                )  # fmt: skip
                rows.append(row)
                if 'failed' in result:
                    row['images/s'] = result['failed']
                    continue
                rates[kind] = result['images/s']
                row |= {
                    'images/s': result['images/s'],
                    'of compiled PyTorch': None,
                    'TFLOP/s': result['TFLOP/s'],
                    'of peak': result['TFLOP/s'] / peaks[dtype],
                    **{key: result[key] for key in KEPT if key in result},
                }
                if result['note'] not in notes:
                    notes.append(result['note'])
            for row in rows[-len(options.kinds) :]:
                if 'PyTorch, compiled' in rates and row['kind'] in rates:
                    row['of compiled PyTorch'] = rates[row['kind']] / rates['PyTorch, compiled']
    return Report(rows, notes)


def _case(**case) -> dict:
    """Runs `train_step_case` in a process of its own."""
    done = subprocess.run(
        [sys.executable, '-m', 'benchmarks.train_step_case', json.dumps(case)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f'exit status {done.returncode}']
        print(done.stderr, file=sys.stderr)
        return {'failed': f'failed: {lines[-1][:60]}'}
    return json.loads(done.stdout.splitlines()[-1])
