"""Starts the program: every mistake of the user's is one line and exit status 2."""

import errno
import runpy
import sys
from collections.abc import Callable

from absl import app, flags

from pneumojax import interrupts
from pneumojax.errors import UsageError
from pneumojax.flags import spell_out
from pneumojax.progress import show_log

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
    interrupts.end_on_terminate()

    def guarded(argv):
        try:
            sys.exit(main(argv))
        except UsageError as e:
            sys.exit(_complain(str(e)))
        except OSError as e:
            if e.errno not in _MENDABLE:
                raise
            where = f'{e.filename}: ' if e.filename else ''
            sys.exit(_complain(f'{where}{e.strerror}; mend that and the same command continues'))
        except KeyboardInterrupt as e:
            print('pneumojax: interrupted; the same command continues', file=sys.stderr)
            sys.exit(getattr(e, 'status', 130))  # as a shell reports the signal
        except FloatingPointError as e:
            sys.exit(f'pneumojax: {e}')

    app.run(guarded, flags_parser=parse_flags)


def parse_flags(argv: list[str]) -> list[str]:
    """As absl's own, but every mistake is one line and exit status 2."""
    try:
        return flags.FLAGS(spell_out(argv))
    except (flags.Error, UsageError) as e:
        message = str(e)
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        message = f'--config: {e}'  # an unknown key, a bad value
    return sys.exit(_complain(message))


def _complain(message: str) -> int:
    print(f'pneumojax: {" ".join(message.split())}', file=sys.stderr)
    return 2
