"""The one exception that means: the user can mend this."""


class UsageError(Exception):
    """Unusable arguments, configuration or input files.

    The message is one line that names the file, key or id, says what was expected and what to do.
    `pneumojax.main` prints it without a traceback and exits with status 2.
    """
