"""Where Python looks for modules: never in the working directory, which may hold others' files."""

import os
import sys


def leave_out_working_directory() -> None:
    """Undoes that `python -m` puts the working directory first: a numpy.py in it would run.

    It stays if this package itself lies there. Processes that this one starts do not add it either.
    Call this before anything else is imported.
    """
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    here = ('', os.getcwd())
    sys.path[:] = [folder for folder in sys.path if folder == root or folder not in here]
    os.environ['PYTHONSAFEPATH'] = '1'
