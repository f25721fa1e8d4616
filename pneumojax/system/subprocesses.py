"""Starts processes that run a module of this package."""

import os
import pathlib
import subprocess
import sys
from typing import Any


def start(module: str, **options: Any) -> subprocess.Popen:
    """Starts `python -P -m module`, which imports this package from where the caller did.

    Unlike `python -m`, it imports nothing from the working directory, which may be a folder of
    images from strangers.

    Args:
      module: full name of a module with a `__main__` part.
      options: of `subprocess.Popen`.
    """
    root = str(pathlib.Path(__file__).parents[2])
    # An empty entry would be the working directory.
    given = filter(None, os.environ.get('PYTHONPATH', '').split(os.pathsep))
    variables = {**os.environ, 'PYTHONPATH': os.pathsep.join([root, *given])}
    return subprocess.Popen([sys.executable, '-P', '-m', module], env=variables, **options)
