"""`UsageError`, the exception for everything that the user can fix, and one-line error messages."""


class UsageError(Exception):
    """Unusable arguments, configuration or input files.

    The message is one line that names the file, key or id, says what was expected and what to do.
    `pneumojax.main` prints it without a traceback and exits with status 2.
    """


def first_line(error: BaseException, limit: int = 200) -> str:
    """The type and the first line of an error, to be quoted in a one-line message.

    Do not use it for errors about files that name a patient: the text may quote them.

    Args:
      error: usually one that a library raised.
      limit: most characters of the line.
    """
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    return f'{name}: {lines[0][:limit]}' if lines else name
