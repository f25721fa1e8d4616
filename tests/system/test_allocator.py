"""What the C library does with freed memory, counted by the system in page faults."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource
from pneumojax.system import allocator

if {keep}:
    print(allocator.keep_freed_memory())
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = library.malloc(ctypes.c_size_t(64 << 20))
    ctypes.memset(ctypes.c_void_p(block), 1, 64 << 20)
    library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


def run(keep, **environment):
    """What the program prints, in a process of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(('MALLOC_', 'GLIBC_'))}
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM.format(keep=keep)],
        env=kept | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='mallopt(3) is of Linux')
def test_a_block_that_was_freed_needs_no_new_pages():
    pages = (64 << 20) // os.sysconf('SC_PAGESIZE')
    (dropped,) = map(int, run(keep=False))
    was_told, kept = run(keep=True)
    if was_told == 'False':
        pytest.skip('the C library is not glibc')
    huge_pages = 512  # 2 MiB of 4 KiB
    assert dropped >= pages / huge_pages
    assert int(kept) < dropped / 4


@pytest.mark.parametrize('name', ['MALLOC_ARENA_MAX', 'MALLOC_TRIM_THRESHOLD_', 'GLIBC_TUNABLES'])
def test_users_who_set_malloc_are_left_alone(name):
    assert run(keep=True, **{name: ''})[0] == 'False'
