"""Loads config files: `stage2`, `configs/stage2.py` or your own file, with `:ARGUMENT` if wanted.

The project's own files are in `configs/`, beside the package in a repository and inside it once
installed. They import one another as `configs.NAME`, and your own config file can do the same:

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
    """The folder of the project's own config files."""
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
      text: one of `names()`, or the path of a file that ends in .py. What follows a colon is passed
        to its `get_config` as a string.

    Returns:
      A new configuration. It is locked: keys can be changed but not added.

    Raises:
      UsageError: there is no such name or file, or the file raises.
    """
    place, *argument = text.split(':', 1)
    path = find(place)
    with _importable(path):
        try:
            spec = importlib.util.spec_from_file_location('config_file', path)
            assert spec is not None  # as the name ends in .py
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            config = module.get_config(*argument)
            if isinstance(config, ml_collections.ConfigDict):
                return upgrade(config).lock()
        except UsageError:
            raise
        # The file is the user's program: whatever it raises, that is where to fix it.
        except Exception as error:
            raise UsageError(
                f'--config: {_where(path, error)}: {type(error).__name__}: {error}'
            ) from error
    raise UsageError(
        f'--config: {path}: get_config() returned {type(config).__name__}, expected a '
        'ConfigDict; start from base: from configs import base'
    )


def find(place: str) -> pathlib.Path:
    """The file of a name or path. A `configs/NAME.py` that does not exist is the project's own.

    Raises:
      UsageError: there is no such file.
    """
    known = names()
    if not place.endswith('.py'):
        if place in known:
            return folder() / f'{place}.py'
        raise UsageError(
            f'--config: there is no config named {place!r}; the names are {", ".join(known)}, and '
            'the path of a file ends in .py'
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
        f'--config: there is no file {place!r}; give an existing one, or a name: {", ".join(known)}'
    )


class Parser(flags.ArgumentParser):
    """Parses `--config`. The parser of ml_collections, which this replaces, knows only paths."""

    def parse(self, argument: str) -> ml_collections.ConfigDict:
        """See `load`."""
        return load(argument)

    def flag_type(self) -> str:
        """What absl's help calls the value."""
        return 'name or path of a config file'


@contextlib.contextmanager
def _importable(path: pathlib.Path) -> Iterator[None]:
    """Inside, `configs` is a folder of that name around the file, then the project's own.

    Afterwards, what the program (such as a notebook) had imported as `configs` is there again.
    """
    before = {name: sys.modules.pop(name) for name in list(filter(_is_configs, sys.modules))}
    around = [parent for parent in path.absolute().parents if parent.name == 'configs'][:1]
    module = types.ModuleType('configs')
    module.__path__ = [str(place) for place in (*around, folder())]
    sys.modules['configs'] = module
    try:
        yield
    finally:
        for name in list(filter(_is_configs, sys.modules)):
            del sys.modules[name]
        sys.modules.update(before)


def _is_configs(name: str) -> bool:
    return name == 'configs' or name.startswith('configs.')


def _where(path: pathlib.Path, error: Exception) -> str:
    """The file, with the line that failed if that line is in this file."""
    lines = [
        f.lineno
        for f in traceback.extract_tb(error.__traceback__)
        if f.filename == str(path.absolute())
    ]
    return f'{path}, line {lines[-1]}' if lines else str(path)
