"""Starts the program. A mistake of the user's becomes one line on stderr and exit status 2."""

import atexit
import errno
import os
import re
import runpy
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags

from pneumojax import __version__, config_files
from pneumojax import config as config_lib
from pneumojax.errors import UsageError
from pneumojax.flags import MODE, expand_fold
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
    """Like absl's own parser, but a mistake is one line and exit status 2, and help is none."""
    if '--version' in argv[1:]:
        print(f'pneumojax {__version__}')
        sys.exit(0)
    try:
        return flags.FLAGS(expand_fold(argv))
    except SystemExit:  # after the help, with status 1
        sys.exit(0)
    except UsageError as error:
        message = str(error)
    except flags.UnrecognizedFlagError as error:
        message = str(error)
        if error.flagname.startswith('config.'):
            message = f'--{error.flagname} changes a config: give --config=NAME before it'
    except flags.Error as error:
        message = str(error)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = _unknown_key(expand_fold(argv)) or f'--config: {error}'  # or a bad value
    return sys.exit(_complain(message))


def require_no_words(argv: list[str]) -> None:
    """UsageError for words behind the program's name that are no options, such as a mode."""
    for word in argv[1:2]:
        known = word in getattr(flags.FLAGS[MODE.name].parser, 'enum_values', ())
        raise UsageError(
            f'unknown argument {word!r}; '
            + (f'did you mean --mode={word}?' if known else 'every option starts with --')
        )


def _unknown_key(argv: list[str]) -> str:
    """What is wrong with the first `--config.KEY` that the config has not; '' if it has them all.

    ml_collections raises errors of several types for it, whose words are for programmers.
    """
    text = re.search(r'\0--?config[=\0]([^\0]*)', '\0'.join(['', *argv]))
    config = config_files.load(text[1]) if text else None
    for word in argv if config is not None else ():
        match = re.match(r'--?(?:no)?config\.([^=]*)', word)
        if match and not config_lib.has(config, match[1]):
            advice = config_lib.advice(config, match[1], '--config.')
            return f'--config.{match[1]}: there is no such key; {advice}'
    return ''


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
