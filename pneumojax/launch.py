"""Starts the program: every mistake of the user's is one line and exit status 2."""

import sys
from collections.abc import Callable

from absl import app, flags

from pneumojax.errors import UsageError
from pneumojax.flags import spell_out
from pneumojax.progress import show_log


def launch(main: Callable[[list[str]], int], config_flag) -> None:
    """Parses the flags, runs `main` and exits with what it returns.

    Args:
      main: from the arguments that are no flags to an exit status.
      config_flag: holder of `--config`; a file that cannot be loaded is the user's mistake too.
    """
    show_log()

    def guarded(argv):
        try:
            sys.exit(main(argv))
        except UsageError as e:
            sys.exit(_complain(str(e)))
        except KeyboardInterrupt:
            print('pneumojax: interrupted; the same command continues', file=sys.stderr)
            sys.exit(130)  # as a shell reports SIGINT
        except FloatingPointError as e:
            sys.exit(f'pneumojax: {e}')

    app.run(guarded, flags_parser=lambda argv: parse_flags(argv, config_flag))


def parse_flags(argv: list[str], config_flag) -> list[str]:
    """As absl's own, but every mistake is one line and exit status 2."""
    try:
        rest = flags.FLAGS(spell_out(argv))
        if config_flag.value is not None:
            _ = config_flag.value.name  # a file that could not be loaded complains only when used
        return rest
    except flags.Error as e:
        message = str(e)
    except (AttributeError, KeyError, TypeError, ValueError, OSError, ImportError) as e:
        message = f'--config: {e}'  # a file that is missing or broken, an unknown key, a bad value
    return sys.exit(_complain(message))


def _complain(message: str) -> int:
    print(f'pneumojax: {" ".join(message.split())}', file=sys.stderr)
    return 2
