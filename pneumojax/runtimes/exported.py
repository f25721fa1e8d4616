"""Exported networks: the file for other programs, its description, and the copy beside a run.

    unet.onnx       from uint8 squares to probabilities, see `outputs.onnx_graph`
    unet.onnx.json  which weights these are, how they were judged, and the SHA-256 of the file

Both stand in a folder that `--mode=export --format=onnx` wrote, which predicts on its own, without
the run, its config, JAX or Orbax; or in a run's `exported/`, made when it is first predicted with
on a processor. That copy is named after everything that went into it, so it is never stale.
"""

import hashlib
import json
import pathlib
from typing import Any

from pneumojax.errors import UsageError

MODEL, DESCRIPTION = 'unet.onnx', 'unet.onnx.json'
VERSION = 3  # of the graph; a copy of another version is made anew


class CannotExport(UsageError):
    """A network that cannot be had as ONNX here; JAX can still predict with it."""


def is_export(path: pathlib.Path) -> bool:
    """Whether a folder holds an exported network."""
    return (path / DESCRIPTION).is_file()


def describe(folder: pathlib.Path) -> dict[str, Any]:
    """The description in an exported folder, whose network is whole.

    Raises:
      UsageError: one of the files is missing, damaged or not what it says.
    """
    path = folder / DESCRIPTION
    try:
        stated = json.loads(path.read_text())
        with open(folder / MODEL, 'rb') as file:
            actual = hashlib.file_digest(file, 'sha256').hexdigest()
        if stated['sha256'] != actual:
            raise UsageError(
                f'{folder / MODEL} is damaged or another file: its SHA-256 is not the one in '
                f'{path.name}; export it again into another folder'
            )
        known = {'identity', 'rule', 'shape', 'batch_size', 'image_size'}
        if missing := known - stated.keys():
            raise KeyError(f'no {", ".join(sorted(missing))}')
    except OSError as error:
        raise UsageError(f'{error.filename or path} cannot be read: {error.strerror}') from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f'{path} does not describe an exported network: {error}') from None
    return stated
