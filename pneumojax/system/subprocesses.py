"""Starts processes that run a module of this package."""

import os
import pathlib
import subprocess
import sys
from typing import Any


def start(module: str, **options: Any) -> subprocess.Popen:
    """Starts `python -m module`, which imports this package from where the caller did.

    Args:
      module: full name of a module with a `__main__` part.
      options: of `subprocess.Popen`.
    """
    root = str(pathlib.Path(__file__).parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get('PYTHONPATH')])])
    variables = {**os.environ, 'PYTHONPATH': path}
    return subprocess.Popen([sys.executable, '-m', module], env=variables, **options)
