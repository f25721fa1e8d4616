"""Progress on a terminal is tqdm's bar; in a log file it is plain lines, and few of them."""

import os
import pty
import re
import subprocess
import sys
import termios
import time

import pytest

from pneumojax.system import progress
from tests.waiting import PATIENCE

WORK = """
import sys
from pneumojax.system.progress import bar, log, show_log, waiting

show_log()
with waiting('compiling it'):
    log.warning('a note')
for _ in bar(range(3), 'first', 3, unit='image'):
    log.warning('another')
with bar(desc='second', total=5, unit='step', initial=2) as shown:
    shown.update(2)
    shown.set_postfix(loss='0.5', refresh=False)
    shown.set_postfix(dice='0.7', refresh=False)
assert list(bar(range(3), 'never', 3, unit='image', disable=True)) == [0, 1, 2]
"""


@pytest.fixture
def clock(monkeypatch):
    """A list that holds the time."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
    return now


def test_a_log_file_gets_plain_lines(tmp_path):
    result = subprocess.run([sys.executable, '-c', WORK], capture_output=True, check=True)
    lines = result.stderr.decode().split('\n')
    assert not re.search(rb'[\r\x1b]', result.stderr)
    assert re.fullmatch(r'compiling it \(\d+\.\d s\)', lines.pop(2))
    assert lines == [
        'compiling it ...', 'warning: a note', *['warning: another'] * 3,
        'first: 3 of 3 images (100 %), 00:00',
        'second: 4 of 5 steps (80 %), 00:00, loss 0.5, dice 0.7',
        '',
    ]  # fmt: skip


def test_a_terminal_gets_bars():
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with subprocess.Popen([sys.executable, '-c', WORK], stderr=theirs) as process:
        os.close(theirs)
        seen = b''
        try:
            while part := os.read(ours, 1 << 16):
                seen += part
        except OSError:  # the other side is closed
            pass
        assert process.wait(PATIENCE) == 0
    os.close(ours)
    for words in (b'compiling it (', b'first: 100%|', b'second:  80%|', b'dice=0.7', b'warning: a'):
        assert words in seen
    assert seen.count(b'\r') > 5


def test_lines_come_once_in_a_while_and_say_how_long_it_takes(clock, capsys):
    seconds = progress.EVERY / 10
    for _ in progress.bar(range(100), 'x', 100, unit='file'):
        clock[0] += seconds
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    half = time.strftime('%M:%S', time.gmtime(50 * seconds))
    assert lines[4] == f'x: 50 of 100 files (50 %), {half}, {half} left'


def test_without_a_total_it_counts(clock, capsys):
    with progress.bar(desc='x.pth', unit='B', unit_scale=True) as shown:
        clock[0] += 1.5 * progress.EVERY
        shown.update(12_300_000)
        clock[0] += 1
        shown.update(1)
        assert capsys.readouterr().err == 'x.pth: 12.3MB, 01:30\n'
    assert capsys.readouterr().err == 'x.pth: 12.3MB, 01:31\n'


def test_an_error_leaves_the_last_line(capsys):
    with (
        pytest.raises(OSError, match='full'),
        progress.bar(desc='x', total=2, unit='file') as shown,
    ):
        _fail(shown)
    assert capsys.readouterr().err == 'x: 1 of 2 files (50 %), 00:00\n'


def _fail(shown):
    shown.update()
    raise OSError('full')
