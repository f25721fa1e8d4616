"""Starts the program. A mistake of the user's becomes one line on stderr and exit status 2."""

import atexit
import errno
import os
import runpy
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags

from pneumojax.errors import UsageError
from pneumojax.flags import expand_fold
from pneumojax.system import processes, signals, streams
from pneumojax.system.progress import show_log

LOST = (
    'another process of this run has ended or cannot be reached; start all processes again with '
    'the same commands, and they continue from the newest checkpoint'
)
# What the user can fix, such as a full disk. Any other OSError is a bug of the program.
_FIXABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG,
            errno.EIO, errno.EMFILE, errno.ENFILE)  # fmt: skip


def command() -> None:
    """The installed command `pneumojax`, the same as `python -m pneumojax.main`."""
    runpy.run_module('pneumojax.main', run_name='__main__', alter_sys=True)


def launch(main: Callable[[list[str]], int]) -> None:
    """Parses the flags, runs `main` and exits with the status that it returns.

    Args:
      main: from the arguments that are not flags to an exit status.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # hides XLA's start-up messages
    streams.make_reliable()
    show_log()
    signals.end_on_terminate()

    def guarded(argv: list[str]) -> None:
        try:
            sys.exit(main(argv))
        except UsageError as error:
            _exit(_complain(_platform_problem() or str(error)))
        except OSError as error:
            if error.errno not in _FIXABLE:
                raise
            where = f'{error.filename}: ' if error.filename else ''
            _exit(_complain(f'{where}{error.strerror}; fix this, then rerun the same command'))
        except KeyboardInterrupt as error:
            status = getattr(error, 'status', 130)  # as a shell reports the signal
            signals.end_at_once(status)
            print('pneumojax: interrupted; rerun the same command to continue', file=sys.stderr)
            _leave(status)
        except FloatingPointError as error:
            print(f'pneumojax: {error}', file=sys.stderr)
            _exit(1)
        except Exception as error:
            if problem := _platform_problem():
                _exit(_complain(problem))
            if processes.process_count() == 1:
                raise
            traceback.print_exc()
            if type(error).__name__ == 'JaxRuntimeError':  # by name, so as not to import JAX
                _complain(LOST)
            _exit(1)

    app.run(guarded, flags_parser=parse_flags)


def _exit(status: int) -> None:
    """Ends this process at once where several train: a clean exit would wait for the others."""
    if processes.process_count() > 1:
        _leave(status)
    sys.exit(status)


def _leave(status: int) -> NoReturn:
    """Ends this process without taking its modules apart.

    Where a signal came while compiled code was being imported, that ended in a segmentation fault
    (about one time in twenty), and the shell was told of that.
    """
    if processes.process_count() == 1:  # JAX would wait for the other processes
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def parse_flags(argv: list[str]) -> list[str]:
    """Like absl's own parser, but a mistake is one line and exit status 2."""
    try:
        return flags.FLAGS(expand_fold(argv))
    except (flags.Error, UsageError) as error:
        message = str(error)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = f'--config: {error}'  # an unknown key or a bad value
    return sys.exit(_complain(message))


def _platform_problem() -> str:
    """What is wrong with JAX_PLATFORMS, which JAX reports by different errors; '' if nothing is."""
    if os.environ.get('JAX_PLATFORMS', 'cpu') != 'cpu' and 'jax' in sys.modules:
        from pneumojax.system import devices  # late: it imports JAX

        try:
            devices.local_devices()
        except UsageError as error:
            return str(error)
    return ''


def _complain(message: str) -> int:
    print(f'pneumojax: {" ".join(message.split())}', file=sys.stderr)
    return 2
