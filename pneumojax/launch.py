"""Starts the program: every mistake of the user's is one line and exit status 2."""

import errno
import os
import runpy
import sys
import traceback
from collections.abc import Callable

from absl import app, flags

from pneumojax.errors import UsageError
from pneumojax.flags import spell_out
from pneumojax.system import processes, signals
from pneumojax.system.progress import show_log

LOST = (
    'another process of this run has ended or cannot be reached; start all of them again with the '
    'same commands, they continue from the newest checkpoint'
)
# What the system refuses and its owner can mend; any other OSError is a defect of ours.
_MENDABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG,
             errno.EIO, errno.EMFILE, errno.ENFILE)  # fmt: skip


def command() -> None:
    """The installed command `pneumojax`: `python -m pneumojax.main`, whatever that does."""
    runpy.run_module('pneumojax.main', run_name='__main__', alter_sys=True)


def launch(main: Callable[[list[str]], int]) -> None:
    """Parses the flags, runs `main` and exits with what it returns.

    Args:
      main: from the arguments that are no flags to an exit status.
    """
    show_log()
    signals.end_on_terminate()

    def guarded(argv):
        try:
            sys.exit(main(argv))
        except UsageError as error:
            _fail(_complain(str(error)))
        except OSError as error:
            if error.errno not in _MENDABLE:
                raise
            where = f'{error.filename}: ' if error.filename else ''
            _fail(_complain(f'{where}{error.strerror}; mend that and the same command continues'))
        except KeyboardInterrupt as error:
            print('pneumojax: interrupted; the same command continues', file=sys.stderr)
            sys.exit(getattr(error, 'status', 130))  # as a shell reports the signal
        except FloatingPointError as error:
            print(f'pneumojax: {error}', file=sys.stderr)
            _fail(1)
        except Exception as error:
            if processes.process_count() == 1:
                raise
            traceback.print_exc()
            if type(error).__name__ == 'JaxRuntimeError':  # without importing JAX for it
                _complain(LOST)
            _fail(1)

    app.run(guarded, flags_parser=parse_flags)


def _fail(status: int) -> None:
    """Ends the program. Of several processes each ends by itself: waiting would be for ever."""
    if processes.process_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def parse_flags(argv: list[str]) -> list[str]:
    """As absl's own, but every mistake is one line and exit status 2."""
    try:
        return flags.FLAGS(spell_out(argv))
    except (flags.Error, UsageError) as error:
        message = str(error)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = f'--config: {error}'  # an unknown key, a bad value
    return sys.exit(_complain(message))


def _complain(message: str) -> int:
    print(f'pneumojax: {" ".join(message.split())}', file=sys.stderr)
    return 2
