"""The one exception that means: the user can mend this; and what others said, in a line."""


class UsageError(Exception):
    """Unusable arguments, configuration or input files.

    The message is one line that names the file, key or id, says what was expected and what to do.
    `pneumojax.main` prints it without a traceback and exits with status 2.
    """


def first_line(error: BaseException, limit: int = 200) -> str:
    """What a library's exception says, as part of one line: its type, and the first of its lines.

    Not for errors about files that name a patient: their text may quote them.
    """
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    return f'{name}: {lines[0][:limit]}' if lines else name
