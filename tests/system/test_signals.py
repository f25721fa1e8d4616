"""Signals to end: none is lost, whatever the program is doing when it comes."""

import pathlib
import signal
import subprocess
import sys

import pytest

from tests.waiting import PATIENCE

REPOSITORY = pathlib.Path(__file__).parents[2]

# A signal comes inside a finalizer, or inside a callback of the garbage collector: Python prints
# what is raised there, and goes on.
PROGRAM = """
import gc, os, signal, sys, time
from pneumojax.launch import launch

signum = int(sys.argv.pop())

def interrupted(*_):
    if interrupted.left:
        interrupted.left -= 1
        os.kill(os.getpid(), signum)
        time.sleep(0)  # here the handler runs

interrupted.left = 2

class Finalized:
    __del__ = interrupted

def main(argv):
    Finalized()
    gc.callbacks.append(interrupted)
    gc.collect()
    while True:
        time.sleep(0.01)

launch(main)
"""


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_not_lost_where_no_exception_can_pass(signum):
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, str(int(signum))],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 128 + signum
    assert done.stderr == 'pneumojax: interrupted; rerun the same command to continue\n'


def test_an_interrupted_program_does_not_take_its_modules_apart():
    """They may be half imported. Here, doing so crashes. What is registered to run at exit runs."""
    program = """
import atexit, ctypes, os, signal
from pneumojax.launch import launch

class Crashing:
    def __del__(self, crash=ctypes.string_at):
        crash(0)

crashing = Crashing()
atexit.register(print, 'cleaned up')
launch(lambda argv: os.kill(os.getpid(), signal.SIGTERM))
"""
    done = subprocess.run(
        [sys.executable, '-c', program],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert done.stdout == 'cleaned up\n'


def test_a_second_signal_while_the_program_is_ending_changes_nothing():
    program = """
import os, signal, sys
from pneumojax.launch import launch

class Interrupting:
    def write(self, text):
        os.kill(os.getpid(), signal.SIGTERM)
        return sys.__stderr__.write(text)

    def flush(self):
        sys.__stderr__.flush()

def main(argv):
    sys.stderr = Interrupting()
    os.kill(os.getpid(), signal.SIGTERM)

launch(main)
"""
    done = subprocess.run(
        [sys.executable, '-c', program],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert 'Traceback' not in done.stderr


def test_other_errors_in_finalizers_are_printed_as_ever():
    program = """
from pneumojax.launch import launch

class Finalized:
    def __del__(self):
        raise ValueError('from a finalizer')

def main(argv):
    Finalized()
    return 0

launch(main)
"""
    done = subprocess.run(
        [sys.executable, '-c', program],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert 'ValueError: from a finalizer' in done.stderr
