"""Runs a command that the kernel ends when it, or what it starts, opens an internet socket.

Unlike a patched `socket.socket`, this also sees libraries in C++, some of which send telemetry.
"""

import ctypes
import os
import platform
import struct
import subprocess
import sys

from tests.waiting import PATIENCE

STATUS = -31  # of a command that was ended so: SIGSYS
_SOCKET = {'x86_64': 41, 'aarch64': 198}.get(platform.machine())  # number of the system call
_AF_INET, _AF_INET6 = 2, 10
_KILL, _ALLOW = 0x8000_0000, 0x7FFF_0000
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2  # of prctl(2)


def is_possible():
    """Whether this system can do it."""
    command = [sys.executable, '-c', 'import socket; socket.socket(socket.AF_INET)']
    return _SOCKET is not None and run(command).returncode == STATUS


def run(command, *, folder=None, **options):
    """Like `subprocess.run`, with text captured.

    Args:
      command: of Python.
      folder: where a `sitecustomize.py` may be written. It keeps urllib3, which pydicom imports
        where it is installed, from trying whether it could listen on ::1.
      options: of `subprocess.run`.
    """
    environment = dict(options.pop('env', os.environ))
    if folder is not None:
        (folder / 'sitecustomize.py').write_text('import socket\nsocket.has_ipv6 = False\n')
        path = [str(folder), environment.get('PYTHONPATH', '')]
        environment['PYTHONPATH'] = os.pathsep.join(filter(None, path))
    return subprocess.run(
        [sys.executable, __file__, *map(str, command)], env=environment, capture_output=True,
        text=True, timeout=PATIENCE, check=False, **options,
    )  # fmt: skip


def _forbid():
    """Installs the filter in this process; what it starts inherits it."""

    def statement(code, value, if_true=0, if_false=0):
        return struct.pack('HBBI', code, if_true, if_false, value)

    load, jump_equal, give = 0x20, 0x15, 0x06
    number, first_argument = 0, 16  # offsets in `struct seccomp_data`
    program = b''.join([
        statement(load, number),
        statement(jump_equal, _SOCKET, 0, 4),
        statement(load, first_argument),
        statement(jump_equal, _AF_INET, 1, 0),
        statement(jump_equal, _AF_INET6, 0, 1),
        statement(give, _KILL),
        statement(give, _ALLOW),
    ])  # fmt: skip
    memory = ctypes.create_string_buffer(program, len(program))
    described = struct.pack('HxxxxxxP', len(program) // 8, ctypes.addressof(memory))
    prctl = ctypes.CDLL(None).prctl
    if prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(_SET_SECCOMP, _FILTER, described, 0, 0):
        sys.exit('no filter of system calls')


if __name__ == '__main__':
    _forbid()
    os.execv(sys.argv[1], sys.argv[1:])
