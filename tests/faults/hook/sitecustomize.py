"""kill -9 just before the program changes its files for the Nth time.

Python imports this by itself where PYTHONPATH names this folder. `$FAULT_AT` holds a number and a
folder; only changes below that folder count, and only those that Python makes. The number 0 ends
nothing: the changes are then listed in the file `$FAULT_LIST`.
"""

import os
import signal
import sys
import threading

_CHANGES = ('os.rename', 'os.link', 'os.mkdir', 'os.remove', 'os.rmdir', 'os.truncate')
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def install(number: int, folder: str, listed: str | None) -> None:
    """From now on in this process."""
    count, lock = 0, threading.Lock()

    def audit(event: str, arguments: tuple) -> None:
        nonlocal count
        if event == 'open':
            if not arguments[2] & _WRITING:
                return
        elif event not in _CHANGES:
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(path))
        if not path.startswith(folder + os.sep) or path == listed:
            return
        with lock:
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
        if listed:
            with open(listed, 'a') as file:
                file.write(f'{event} {path}\n')

    sys.addaudithook(audit)


def from_environment() -> None:
    """Installs it if `$FAULT_AT` asks for it; the children of this process do not end as well."""
    if at := os.environ.pop('FAULT_AT', None):
        number, _, folder = at.partition(' ')
        install(int(number), folder, os.environ.pop('FAULT_LIST', None))


from_environment()
