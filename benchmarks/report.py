"""What the benchmarks share: timing, the machine, and a table."""

import contextlib
import importlib.metadata
import os
import pathlib
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from pneumojax.system.parallel import cores

PACKAGES = (
    'jax', 'jaxlib', 'flax', 'optax', 'grain', 'numpy', 'opencv-python', 'pydicom', 'torch',
    'segmentation-models-pytorch', 'albumentations', 'onnx', 'onnxruntime', 'openvino',
)  # fmt: skip


class Report(NamedTuple):
    """What a benchmark found."""

    rows: list[dict[str, Any]]  # of the table: numbers, texts or None, JSON's types
    notes: Sequence[str] = ()  # sentences below it
    more: Mapping[str, list[dict[str, Any]]] = {}  # further tables, by what they show


class Timing(NamedTuple):
    """Seconds of repeated calls."""

    median: float
    low: float
    high: float


def seconds(call: Callable[[], Any], repeats: int, warmup: int = 1) -> Timing:
    """Times calls one by one.

    Args:
      call: blocks until its work is done.
      repeats: timed calls, 1 or more.
      warmup: calls before them, which compile and fill caches.
    """
    for _ in range(warmup):
        call()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return Timing(statistics.median(taken), min(taken), max(taken))


class Usage(NamedTuple):
    """What one call took."""

    seconds: float
    own_cores: float  # processor cores that this process and its descendants kept busy
    other_cores: float | None  # those that all other processes kept busy; None if not known


def watch(call: Callable[[], Any], repeats: int) -> Usage:
    """Times calls on a machine that may not be ours alone: the median of the undisturbed ones.

    Args:
      call: blocks until its work is done.
      repeats: calls. Those during which others used a tenth of a core or more count only where
        there is nothing else; then the least disturbed one is returned.
    """
    return watch_in_turn({'': call}, repeats)['']


def watch_in_turn(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int,
    before: Callable[[str], Any] = lambda name: None,
) -> dict[str, Usage]:
    """Times several things in turn, so that a machine's moods meet all of them alike.

    Args:
      calls: by name, as for `watch`; each is called once a round.
      rounds: how many.
      before: called with the name before each of them, while the clock stands.
    """
    taken: dict[str, list[Usage]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            before(name)
            taken[name].append(_once(call))
    return {name: _middle(usages) for name, usages in taken.items()}


def _once(call) -> Usage:
    own, busy, start = _own_seconds(), _busy_seconds(), time.perf_counter()
    call()
    wall = time.perf_counter() - start
    own = (_own_seconds() - own) / wall
    other = None if busy is None else max(0.0, (_busy_seconds() - busy) / wall - own)
    return Usage(wall, own, other)


def _middle(taken: list[Usage]) -> Usage:
    quiet = sorted(u for u in taken if u.other_cores is None or u.other_cores < 0.1)
    return quiet[len(quiet) // 2] if quiet else min(taken, key=lambda u: u.other_cores)


def _own_seconds() -> float:
    """Processor seconds of this process and all its descendants, those ended and waited for too."""
    parents, ticks = {}, {}
    for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):  # ended meanwhile
            # After the name, which may hold anything: state, parent, ..., four sums of ticks.
            fields = path.read_text().rpartition(')')[2].split()
            pid = int(path.parent.name)
            parents[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))
    if not parents:
        return sum(os.times()[:4])
    own, before = {os.getpid()}, 0
    while len(own) > before:
        before = len(own)
        own |= {pid for pid, parent in parents.items() if parent in own}
    return sum(ticks[pid] for pid in own) / os.sysconf('SC_CLK_TCK')


def _busy_seconds() -> float | None:
    """Seconds that all cores together have been busy since the machine started (Linux)."""
    path = pathlib.Path('/proc/stat')
    if not path.exists():
        return None
    ticks = list(map(int, path.read_text().split('\n', 1)[0].split()[1:9]))
    idle, waiting_for_disk = ticks[3:5]
    return (sum(ticks) - idle - waiting_for_disk) / os.sysconf('SC_CLK_TCK')


def peak_resident_gib() -> float:
    """The most memory this process has held so far, GiB (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def describe_machine() -> dict[str, Any]:
    """Processor, memory and accelerators."""
    text = pathlib.Path('/proc/cpuinfo').read_text() if os.path.exists('/proc/cpuinfo') else ''
    fields = dict(
        (part.strip() for part in line.split(':', 1)) for line in text.splitlines() if ':' in line
    )
    flags = fields.get('flags', '').split()
    wanted = ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16')
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return {
        'processor': fields.get('model name', platform.processor()),
        'cores': cores(),
        'instructions': [flag for flag in wanted if flag in flags],
        'memory_gib': round(memory / 2**30, 1),
        'accelerators': [d.device_kind for d in jax.devices() if d.platform != 'cpu'],
        'system': platform.platform(),
        'python': platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as text under the union of their keys; three significant digits."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [
        '| '
        + ' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + ' |'
        for line in cells
    ]
    rule = '|' + '|'.join('-' * (width + 2) for width in widths) + '|'
    return '\n'.join([lines[0], rule, *lines[1:]])


def _cell(value: Any) -> str:
    if value is None:
        return ''
    if not isinstance(value, float):
        return str(value)
    return f'{value:.0f}' if abs(value) >= 100 else f'{value:.3g}'
