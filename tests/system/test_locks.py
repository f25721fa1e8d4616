"""One process at a time: who holds a lock, and what a killed process leaves behind."""

import os
import subprocess
import sys
import threading
import time

import pytest

from pneumojax.errors import UsageError
from pneumojax.system import locks
from tests.waiting import PATIENCE, wait_for

PROGRAM = """
import pathlib, sys
from pneumojax.system import locks
with locks.LockFile(pathlib.Path(sys.argv[1])):
    print('mine', flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds `tmp_path / 'lock'`."""
    with subprocess.Popen(
        [sys.executable, '-c', PROGRAM, tmp_path / 'lock'], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == 'mine\n'
        yield process
        process.kill()


def test_another_process_is_refused_and_the_holder_named(tmp_path, holder):
    expected = rf'{tmp_path} is in use by process {holder.pid} on .*; wait for it'
    with pytest.raises(UsageError, match=expected), locks.LockFile(tmp_path / 'lock'):
        pass
    assert not locks.is_abandoned(tmp_path / 'lock')


def test_a_killed_process_holds_nothing(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert locks.is_abandoned(tmp_path / 'lock')
    with locks.LockFile(tmp_path / 'lock'):
        assert f'"pid": {os.getpid()}' in (tmp_path / 'lock').read_text()
        assert not locks.is_abandoned(tmp_path / 'lock')
    assert not (tmp_path / 'lock').exists()


def test_a_lock_that_was_just_made_is_not_abandoned(tmp_path):
    (tmp_path / 'lock').touch()  # before its owner has locked it
    assert not locks.is_abandoned(tmp_path / 'lock')
    assert not locks.is_abandoned(tmp_path / 'none')


def test_one_holder_at_a_time(tmp_path):
    """Waiting ends up with the file that others find, though each holder removes its own."""
    inside, most, lock = [], [], threading.Lock()

    def work():
        one = locks.LockFile(tmp_path / 'lock', wait=True)
        for _ in range(50):
            with one:
                with lock:
                    inside.append(1)
                    most.append(len(inside))
                time.sleep(0.001)  # others try meanwhile
                with lock:
                    inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(most) == 200
    assert max(most) == 1
    wait_for(lambda: not list(tmp_path.iterdir()))


def test_without_locks_a_warning_says_so(tmp_path, monkeypatch, messages):
    def refuse(*_):
        raise OSError(95, 'Operation not supported')

    monkeypatch.setattr(locks.fcntl, 'flock', refuse)
    with locks.LockFile(tmp_path / 'lock'):
        pass
    assert any('cannot be locked (Operation not supported)' in message for message in messages)
