"""Programs compiled for a chip that need not be there: compile time, memory, work, roofline.

    python -m benchmarks.run compile --chip=v5e --sizes 512 --what train predict
    python -m benchmarks.run compile --chip=h100 --devices=4 --what train

TPUs need libtpu (pip install 'pneumojax[tpu]'), NVIDIA's GPUs the CUDA plugin (pip install
'pneumojax[cuda]'), on any machine. Every program is compiled in a process of its own. Nothing is
run: seconds on the chip are estimates. `roofline ms` adds up, instruction by instruction, the
longer of its products at the chip's peak and its bytes at the chip's bandwidth; `estimated ms` are
the cycles that a TPU's compiler expects, at the chip's clock. Neither knows what a gather costs:
its rows are counted.

FLOP are those of convolutions and matrix products, beside those that the network needs. The largest
batch follows from the peak memory of the one that was compiled: weights, and so much for each
image. To make sure, compile it with --batch-size.
"""

import json
import subprocess
import sys

import jax

from benchmarks import chips, programs
from benchmarks.report import Report

GIB, G, M = 2**30, 1e9, 1e6


def add_options(parser) -> None:
    """The options of `benchmarks.run compile`."""
    parser.add_argument('--chip', choices=chips.CHIPS, required=True)
    parser.add_argument(
        '--what', nargs='+', default=['train', 'predict', 'augment'], choices=programs.PROGRAMS,
        help='; '.join(f'{name}: {text}' for name, text in programs.PROGRAMS.items()),
    )  # fmt: skip
    parser.add_argument('--sizes', type=int, nargs='+', default=[256, 512], help='pixels')
    parser.add_argument(
        '--dtypes', nargs='+', default=['bfloat16'], choices=['float32', 'bfloat16']
    )
    parser.add_argument('--batch-size', type=int, default=16, help='images on a device')
    parser.add_argument('--devices', type=int, default=1, help='that share a batch')
    parser.add_argument('--width', type=int, help="64 is ResNet34; default: the config's")
    parser.add_argument('--config', default='base', help='of configs, such as recipes.amirassov')
    parser.add_argument('--keep', default='', help='folder for the compiled programs as text')


def measure(options) -> Report:
    """One row for each size, type and program, and a table of their parts."""
    chip = chips.CHIPS[options.chip]
    chips.require(chip)
    jax.config.update('jax_platforms', 'cpu')  # an accelerator that is here is not needed
    rows, parts, notes = [], [], [f'{chip.name}: {chip.source}.']
    for size in options.sizes:
        for dtype in options.dtypes:
            for program in options.what:
                name = {'program': program, 'px': size, 'dtype': dtype}
                keep = f'{options.keep}/{options.chip}_{program}_{size}_{dtype}.txt'
                result = compile_one(
                    chip=options.chip, program=program, size=size, dtype=dtype,
                    batch=options.batch_size, devices=options.devices, width=options.width,
                    config=options.config, keep=keep if options.keep else '',
                )  # fmt: skip
                rows.append(name | row(chip, dtype, result))
                if 'failed' in result:
                    notes.append(f'{program}, {size} px, {dtype}: {result["failed"]}')
                else:
                    parts += [name | part for part in part_rows(chip, result)]
    return Report(rows, notes, {'parts': parts})


def compile_one(**case) -> dict:
    """Runs `compile_case` in a process of its own; its result, or why it failed."""
    done = subprocess.run(
        [sys.executable, '-m', 'benchmarks.compile_case', json.dumps(case)],
        env=chips.environment(chips.CHIPS[case['chip']], case['devices']),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        errors = [line for line in lines if 'Error: ' in line or 'RESOURCE_EXHAUSTED' in line]
        return {'failed': (errors or lines or [f'exit status {done.returncode}'])[-1][:400]}
    return json.loads(done.stdout.splitlines()[-1])


def row(chip: chips.Chip, dtype: str, result: dict) -> dict:
    """The table's row of one result of `compile_case`."""
    if 'failed' in result:
        return {'compile s': 'failed'}
    flops, moved, needed = result['FLOP'], result['bytes'], result['analytic FLOP']
    reported, peak = result["bytes, XLA's count"], chip.peak(dtype)
    values = {
        'compile s': result['compile s'],
        'CPU s': result['CPU s'],
        'peak GiB': result['peak bytes'] / GIB,
        'largest batch': result['largest batch'],
        'GFLOP': flops / G,
        'of analytic': flops / needed if needed else None,
        'GB': moved / G,
        "GB, XLA's count": reported / G if reported else None,
        'FLOP/byte': flops / moved if moved else None,
        'products ms': 1e3 * flops / peak if peak else None,
        'memory ms': 1e3 * moved / chip.bandwidth if chip.bandwidth else None,
        'roofline ms': 1e3 * result['roofline s'] or None,
        'estimated Mcycles': result['cycles'] / M or None,
        'estimated ms': 1e3 * result['cycles'] / chip.clock or None if chip.clock else None,
        'M gathered': result['gathered'] / M or None,
        'collectives': ', '.join(f'{n} {kind}' for kind, n in result['collectives'].items())
        or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def part_rows(chip: chips.Chip, result: dict) -> list[dict]:
    """A row for each part of a program that costs anything."""
    parts, rows = result['parts'], []
    for part in parts['bytes']:
        flops, moved, seconds, cycles, gathered = (
            parts[name][part] for name in ('FLOP', 'bytes', 'roofline s', 'cycles', 'gathered')
        )
        if not (flops or moved or cycles or gathered):
            continue
        values = {
            'part': part,
            'GFLOP': flops / G or None,
            'GB': moved / G,
            'roofline ms': 1e3 * seconds or None,
            'estimated Mcycles': cycles / M or None,
            'share of cycles': cycles / result['cycles'] if result['cycles'] else None,
            'M gathered': gathered / M or None,
        }
        rows.append({name: value for name, value in values.items() if value is not None})
    return rows
