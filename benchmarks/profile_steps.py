"""Where the time of training steps goes: the trainer's own trace, summed by kind of operation.

    python -m benchmarks.run profile_steps                                  on an accelerator
    python -m benchmarks.run profile_steps --images 60 --size 64 --width 8  anywhere: writes a trace

Trains one epoch of `configs/stage2.py` from random weights on phantoms with `--profile`, then reads
the trace. The table is of the device's own timeline, of which a CPU has none.
"""

import contextlib
import gzip
import json
import pathlib
import re
import tempfile
from collections import Counter
from typing import Any

from benchmarks.report import Report
from configs import stage2
from pneumojax.data.phantoms import phantom
from pneumojax.errors import UsageError
from pneumojax.runs.run import Run
from pneumojax.training import loop

ROWS = 15  # kinds of operations, the longest first
OPERATIONS = 'XLA Ops'  # the profiler's name of a device's timeline of operations
STREAM = 'Stream #'  # and of a GPU's timelines of kernels, used where that one is missing


def add_options(parser) -> None:
    """The options of `benchmarks.run profile_steps`."""
    parser.add_argument('--images', type=int, default=2000, help='drawn (2000)')
    parser.add_argument('--drawn-size', type=int, default=1024, help='of phantoms, pixels')
    parser.add_argument('--size', type=int, default=512, help='of the network, pixels (512)')
    parser.add_argument('--width', type=int, default=64, help='64 is ResNet34')
    parser.add_argument('--batch-size', type=int, default=16, help='default: %(default)s')
    parser.add_argument('--dtype', default='bfloat16', help='default: %(default)s')
    parser.add_argument('--steps', type=int, default=10, help='to trace (10)')
    parser.add_argument('--work', type=pathlib.Path, help='a folder to keep (default: temporary)')


def measure(options) -> Report:
    """A row for each kind of operation, and one for the time without any."""
    with contextlib.ExitStack() as stack:
        work = pathlib.Path(
            options.work or stack.enter_context(tempfile.TemporaryDirectory())
        ).absolute()
        phantom.write_dataset(
            work / 'siim', num_images=options.images, size=options.drawn_size, seed=0
        )
        config = stage2.get_config()
        config.image_size, config.num_epochs, config.init_from = options.size, 1, ''
        config.model.pretrained, config.model.width = '', options.width
        config.model.dtype, config.batch_size = options.dtype, options.batch_size
        config.averaging.kind = 'none'
        config.data.root, config.data.cache = str(work / 'siim'), str(work / 'cache')
        run = Run(work / 'profiled')
        loop.train(config, run, profile=options.steps)
        traces = sorted((run / 'profile').rglob('*.trace.json.gz'))
        if not traces:
            raise UsageError(f'nothing was traced: draw more than {options.images} images')
        with gzip.open(traces[-1], 'rt') as file:
            rows = operations(json.load(file)['traceEvents'])
        kept = f'The whole trace, for XProf: {run / "profile"}.' if options.work else ''
    return Report(rows, [
        f'{options.size} px, batches of {options.batch_size}, width {options.width}, '
        f'{options.dtype}; the traced steps are slower than others. {kept}',
        *([] if rows else ['The trace has no timeline of a device: this is a CPU.']),
    ])  # fmt: skip


def operations(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sums the operations of a trace by kind.

    Args:
      events: of one trace in the Trace Event Format, times in microseconds.

    Returns:
      Rows: kind, calls, ms, share of the time from the first operation's start to the last one's
      end; the last row is the time without any operation. Operations within operations count in
      both kinds. Empty if no device has a timeline.
    """
    names: dict[Any, str] = {}
    for event in events:
        if event.get('ph') == 'M' and event['name'] in ('process_name', 'thread_name'):
            thread = event.get('tid') if event['name'] == 'thread_name' else None
            names[event['pid'], thread] = event['args']['name']
    on_devices = [
        event for event in events
        if event.get('ph') == 'X' and names.get((event['pid'], None), '').startswith('/device:')
    ]  # fmt: skip

    def on(name: str) -> list[dict[str, Any]]:
        return [e for e in on_devices if names.get((e['pid'], e['tid']), '').startswith(name)]

    timeline = on(OPERATIONS) or on(STREAM)
    if not timeline:
        return []
    calls: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for event in timeline:
        details = event.get('args', {})
        name = re.sub(r'[._\d]+$', '', details.get('hlo_op') or event['name'])
        kind = details.get('hlo_category') or name
        calls[kind] += 1
        spent[kind] += event['dur'] / 1000
    busy, whole = _busy_and_whole(timeline)
    longest = [kind for kind, _ in spent.most_common()]
    rows = [_row(kind, calls[kind], spent[kind], whole) for kind in longest[:ROWS]]
    if rest := longest[ROWS:]:
        both = (sum(counter[kind] for kind in rest) for counter in (calls, spent))
        rows.append(_row(f'{len(rest)} other kinds', *both, whole))
    return [*rows, _row('no operation', None, whole - busy, whole)]


def _busy_and_whole(timeline: list[dict[str, Any]]) -> tuple[float, float]:
    """Milliseconds of all devices with at least one operation, and from the first to the last."""
    begin = min(event['ts'] for event in timeline)
    end = max(event['ts'] + event['dur'] for event in timeline)
    busy, devices = 0.0, {event['pid'] for event in timeline}
    for device in devices:
        until = begin
        for event in sorted((e for e in timeline if e['pid'] == device), key=lambda e: e['ts']):
            last = event['ts'] + event['dur']
            busy += max(0, last - max(until, event['ts']))
            until = max(until, last)
    return busy / 1000, len(devices) * (end - begin) / 1000


def _row(kind: str, calls: int | None, ms: float, whole: float) -> dict[str, Any]:
    return {'kind': kind, 'calls': calls, 'ms': ms, 'share': ms / whole}
