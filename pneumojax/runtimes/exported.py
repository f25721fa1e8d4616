"""Exported networks: a file for other programs, its description, and the copy beside a run.

    unet.onnx       from uint8 squares to probabilities, see `runtimes.onnx_graph`
    unet.onnx.json  which weights, their rule and evaluation, and the SHA-256 of unet.onnx

The two lie either in a folder that `--mode=export --format=onnx` wrote, which predicts without the
run, its config, JAX or Orbax; or in a run's `exported/`, where they are cached when the run first
predicts on a CPU. That copy's name depends on everything that went into it, so it is never stale.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from pneumojax.errors import UsageError, first_line
from pneumojax.runs import run_files
from pneumojax.system import limits
from pneumojax.system.atomic import refuse_existing, sweep, write_new

MODEL, DESCRIPTION = 'unet.onnx', 'unet.onnx.json'
VERSION = 4  # of the graph; cached copies of another version are replaced


class CannotExport(UsageError):
    """A network that cannot be exported to ONNX here; JAX can still predict with it."""


def is_export(path: pathlib.Path) -> bool:
    """Whether a folder holds an exported network."""
    return (path / DESCRIPTION).is_file()


def refuse_complete(*paths: pathlib.Path) -> None:
    """Raises UsageError if all files of an export exist. One alone may be left by a killed one.

    Removes the unfinished copies of them that killed exports left.
    """
    for path in paths:
        sweep(path.parent, path.name)
    if all(path.exists() for path in paths):
        refuse_existing(*paths)


def write(files: Mapping[pathlib.Path, bytes]) -> None:
    """Writes the files of an export, in this order: all of them, or none.

    An export that was killed may have left some of them; those with the same content are kept.

    Args:
      files: path -> content.

    Raises:
      UsageError: another file exists in such a place, or one cannot be written.
    """
    missing = [path for path, content in files.items() if not _holds(path, content)]
    refuse_existing(*missing)
    written = []
    try:
        for path in missing:
            write_new(path, files[path])
            written.append(path)
    except UsageError:
        for path in written:
            path.unlink()
        raise


def _holds(path: pathlib.Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def describe(folder: pathlib.Path) -> dict[str, Any]:
    """Reads the description in an exported folder and checks that its network is intact.

    Raises:
      UsageError: a file is missing or damaged, or the two do not belong together.
    """
    path = folder / DESCRIPTION
    try:
        stated = json.loads(limits.read_text(path))
        with open(folder / MODEL, 'rb') as file:
            actual = hashlib.file_digest(file, 'sha256').hexdigest()
        if stated['sha256'] != actual:
            raise UsageError(
                f'{folder / MODEL} is damaged or was replaced: its SHA-256 is not the one in '
                f'{path.name}; export the run again into another folder'
            )
        _check(stated)
    except OSError as error:
        raise UsageError(f'{error.filename or path} cannot be read: {error.strerror}') from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f'{path} does not describe an exported network: {first_line(error)}'
        ) from None
    return stated


def _check(stated: dict[str, Any]) -> None:
    """Raises ValueError, or what reading a missing or other value raises, if something is wrong."""
    known = {'identity', 'rule', 'shape', 'batch_size', 'image_size', 'evaluation'}
    if missing := known - stated.keys():
        raise ValueError(f'no {", ".join(sorted(missing))}')
    identity = stated['identity']
    counts = stated['image_size'], stated['batch_size'], identity['step'] + 1
    if not all(type(n) is int and 0 < n < 1 << 31 for n in counts):
        raise ValueError('image_size, batch_size or step is no number of images, pixels or steps')
    if not all(isinstance(text, str) for text in (identity['name'], *identity['flips'])):
        raise ValueError('name or flips are no texts')
    if stated['evaluation'] is not None:
        run_files.check('evaluation.json', stated['evaluation'])
