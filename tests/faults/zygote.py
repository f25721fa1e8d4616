"""Starts the program without its imports, which take most of the time of a short mode.

A process of this module imports what the program imports, then forks for each line of JSON that it
reads. It answers with the id of the new process, and with its status when that has ended. Nothing
that starts threads has run before the fork.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading

REPOSITORY = pathlib.Path(__file__).parents[2]


class Zygote:
    """The process that forks."""

    def __init__(self, variables: dict[str, str]):
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'tests.faults.zygote'], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env=os.environ | variables, cwd=REPOSITORY,
        )  # fmt: skip

    def start(self, **order) -> 'Child':
        """Starts the program; one at a time."""
        self._process.stdin.write(json.dumps(order) + '\n')
        self._process.stdin.flush()
        return Child(self._process.stdout)


class Child:
    """What of `subprocess.Popen` the drivers use."""

    def __init__(self, answers):
        self.pid, self.returncode = int(answers.readline()), None
        self._thread = threading.Thread(target=self._wait, args=(answers,), daemon=True)
        self._thread.start()

    def _wait(self, answers) -> None:
        self.returncode = int(answers.readline())

    def wait(self, timeout: float | None = None) -> int:
        """The status."""
        self._thread.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired('pneumojax', timeout or 0)
        return self.returncode

    def poll(self) -> int | None:
        """The status, None while it runs."""
        return self.returncode


def main() -> None:
    """Serves until its input ends."""
    import grain.python  # noqa: F401
    import highdicom  # noqa: F401
    import onnx  # noqa: F401
    from orbax.checkpoint import v1  # noqa: F401

    with contextlib.suppress(ImportError):  # the extra `node` may not be installed
        pass

    while line := sys.stdin.readline():
        order = json.loads(line)
        child = os.fork()
        if not child:
            _run(**order)
        print(json.dumps(child), flush=True)
        print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), flush=True)


def _run(arguments: list[str], variables: dict[str, str], folder: str, log: str) -> None:
    import runpy

    os.setsid()
    os.chdir(folder)
    os.environ.update(variables)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, target)
    from tests.faults.hook import sitecustomize

    sitecustomize.from_environment()
    sys.argv = ['pneumojax', *arguments]
    runpy.run_module('pneumojax.main', run_name='__main__', alter_sys=True)
    os._exit(0)


if __name__ == '__main__':
    main()
