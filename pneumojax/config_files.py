"""Config files: `stage2` or `configs/stage2.py`, with an argument `stage2:ARGUMENT`; one's own too.

A repository keeps the project's own in `configs/`, beside the package; an installed package carries
them inside. In both they import one another as `configs.NAME`, and so may any other config file:

    from configs import base
"""

import contextlib
import importlib.util
import pathlib
import sys
import traceback
import types
from collections.abc import Iterator

import ml_collections
from absl import flags

from pneumojax.config import upgrade
from pneumojax.errors import UsageError


def folder() -> pathlib.Path:
    """Where the project's own config files lie."""
    package = pathlib.Path(__file__).parent
    inside = package / 'configs'
    return inside if inside.is_dir() else package.parent / 'configs'


def names() -> list[str]:
    """Names of the project's own config files, such as 'stage2'."""
    files = (path.relative_to(folder()) for path in folder().rglob('*.py'))
    return sorted(path.with_suffix('').as_posix() for path in files if path.name[0] not in '._')


def load(text: str) -> ml_collections.ConfigDict:
    """The configuration that `--config=TEXT` means, before any `--config.KEY=VALUE`.

    Args:
      text: a name of `names()`, or the path of a file that ends in .py; what follows a colon is
        given to its `get_config` as a string.

    Returns:
      A new configuration, locked: keys can be changed but not added.

    Raises:
      UsageError: no such name or file, or a file that fails.
    """
    place, *argument = text.split(':', 1)
    path = find(place)
    with _importable(path):
        try:
            spec = importlib.util.spec_from_file_location('config_file', path)
            assert spec is not None  # it is for files that end in .py
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            config = module.get_config(*argument)
        except UsageError:
            raise
        # The file is a program of the user's: whatever it raises, it is the one to be mended.
        except Exception as error:
            raise UsageError(
                f'--config: {_where(path, error)}: {type(error).__name__}: {error}'
            ) from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UsageError(
            f'--config: {path}: get_config() returned {type(config).__name__}, expected a '
            'ConfigDict; start from base: from configs import base'
        )
    return upgrade(config).lock()


def find(place: str) -> pathlib.Path:
    """The file of a name or path; `configs/NAME.py` means the project's own where it is not there.

    Raises:
      UsageError: there is no such file.
    """
    known = names()
    if not place.endswith('.py'):
        if place in known:
            return folder() / f'{place}.py'
        raise UsageError(
            f'--config: there is no config named {place!r}; the names are {", ".join(known)}, and '
            'a file is given as a path that ends in .py'
        )
    path = pathlib.Path(place)
    if path.is_file():
        return path
    if (
        path.parts[0] == 'configs'
        and path.relative_to('configs').with_suffix('').as_posix() in known
    ):
        return folder() / path.relative_to('configs')
    raise UsageError(
        f'--config: there is no file {place!r}; give the path of one, or a name: {", ".join(known)}'
    )


class Parser(flags.ArgumentParser):
    """Of the flag `--config`, in the place of ml_collections' own, which knows paths only."""

    def parse(self, argument: str) -> ml_collections.ConfigDict:
        """See `load`."""
        return load(argument)

    def flag_type(self) -> str:
        """What absl's help calls the value."""
        return 'name or path of a config file'


@contextlib.contextmanager
def _importable(path: pathlib.Path) -> Iterator[None]:
    """Meanwhile `configs` is the folder of that name that the file lies in, and then our own.

    Whatever a program (a notebook, say) has imported under that name is put back.
    """
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_configs(name)}
    own = [parent for parent in path.absolute().parents if parent.name == 'configs'][:1]
    module = types.ModuleType('configs')
    module.__path__ = [str(place) for place in (*own, folder())]
    sys.modules['configs'] = module
    try:
        yield
    finally:
        for name in [name for name in sys.modules if _is_configs(name)]:
            del sys.modules[name]
        sys.modules.update(before)


def _is_configs(name: str) -> bool:
    return name == 'configs' or name.startswith('configs.')


def _where(path: pathlib.Path, error: Exception) -> str:
    """The file, and the line that failed where it is one of the file's own."""
    lines = [
        f.lineno
        for f in traceback.extract_tb(error.__traceback__)
        if f.filename == str(path.absolute())
    ]
    return f'{path}, line {lines[-1]}' if lines else str(path)
