"""JAX's cache of compiled programs: the second run of a command starts without compiling."""

import hashlib
import os
import pathlib
import platform
import sys
import tempfile

from pneumojax.errors import UsageError
from pneumojax.system.progress import log

VARIABLE = 'JAX_COMPILATION_CACHE_DIR'  # JAX's own


def keep(folder: str | None) -> pathlib.Path | None:
    """Tells JAX where to keep programs that take more than a second to compile.

    The key of an entry covers the program, the compiler's version and the kind of device, so a
    stale entry is never read. It does not cover which instructions a processor has, so each kind
    of processor gets a folder of its own (several machines may share a home directory). If nothing
    can be written, the run goes on without a cache.

    Args:
      folder: where to keep them. None means `$JAX_COMPILATION_CACHE_DIR` if it is set, else
        `compiled` in `cache_folder()`. An empty text means nowhere.

    Returns:
      The folder in use, or None.
    """
    if folder is None and os.environ.get(VARIABLE):
        return pathlib.Path(os.environ[VARIABLE])
    if folder == '':
        _tell(None)
        return None
    try:
        parent = cache_folder() / 'compiled' if folder is None else expand_home(folder)
        path = parent.absolute() / _processor()
    except UsageError as error:
        log.info('compiled programs are not kept: %s', error)
        _tell(None)
        return None
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        log.info('compiled programs are not kept: cannot write in %s (%s)', path, error.strerror)
        _tell(None)
        return None
    _tell(path)
    return path


def cache_folder() -> pathlib.Path:
    """$PNEUMOJAX_CACHE, else $XDG_CACHE_HOME/pneumojax, else ~/.cache/pneumojax.

    Raises:
      UsageError: none of them is set and the user has no home directory, as in some containers.
    """
    if own := os.environ.get('PNEUMOJAX_CACHE'):
        return expand_home(own)
    return expand_home(os.environ.get('XDG_CACHE_HOME') or '~/.cache') / 'pneumojax'


def expand_home(path: str) -> pathlib.Path:
    """The path, with the home directory in place of `~`.

    Raises:
      UsageError: there is no such home directory.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            f'{path}: there is no such home directory; set the environment variable '
            'PNEUMOJAX_CACHE to a folder for weights and compiled programs'
        ) from None


def _tell(path: pathlib.Path | None) -> None:
    if path is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = str(path)
    if 'jax' in sys.modules:  # it reads the variable only when it is imported
        sys.modules['jax'].config.update('jax_compilation_cache_dir', path and str(path))


def _processor() -> str:
    """A name that differs between processors with different instructions."""
    told = {platform.machine(), platform.processor()}
    path = pathlib.Path('/proc/cpuinfo')
    if path.exists():
        lines = path.read_text().splitlines()
        told |= {line for line in lines if line.startswith(('flags', 'Features', 'model name'))}
    return hashlib.sha256('\n'.join(sorted(told)).encode()).hexdigest()[:12]
