"""Writes variables as a state dict that PyTorch's segmentation_models_pytorch loads."""

import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from pneumojax.errors import UsageError
from pneumojax.models import pretrained, weight_files
from pneumojax.runtimes import exported


def export_torch(variables: Mapping[str, Any], path: str | os.PathLike) -> pathlib.Path:
    """Writes one state dict for `segmentation_models_pytorch.Unet`, see `pretrained.to_torch`.

    Args:
      variables: {'params', 'batch_stats'} of a `UNet`.
      path: ends in `.safetensors`, or in `.pth`, which needs PyTorch.

    Returns:
      The path.

    Raises:
      UsageError: the file exists already, cannot be written, or needs PyTorch.
    """
    return _export(variables, [pathlib.Path(path)])[0]


def export_torch_all(variables: Mapping[str, Any], folder: str | os.PathLike) -> list[pathlib.Path]:
    """Writes `unet.safetensors`, and `unet.pth` if PyTorch is installed; see `export_torch`.

    Returns:
      The paths. One that a killed export left is kept if it has the same content.

    Raises:
      UsageError: one of them exists already (then neither is written) or cannot be written.
    """
    folder = pathlib.Path(folder)
    suffixes = [weight_files.SAFETENSORS] + (['.pth'] if weight_files.has_torch() else [])
    return _export(variables, [folder / f'unet{suffix}' for suffix in suffixes])


def _export(variables: Mapping[str, Any], paths: list[pathlib.Path]) -> list[pathlib.Path]:
    for path in paths:
        if path.suffix not in (weight_files.SAFETENSORS, '.pth'):
            raise UsageError(
                f'{path}: expected a name ending in {weight_files.SAFETENSORS} or .pth'
            )
        if path.suffix == '.pth' and not weight_files.has_torch():
            raise UsageError(
                f'{path}: PyTorch is not installed; pip install torch, or write .safetensors'
            )
    exported.refuse_complete(*paths)
    state_dict = pretrained.to_torch(variables)
    exported.write({path: _bytes(state_dict, path.suffix) for path in paths})
    return paths


def _bytes(state_dict: dict[str, np.ndarray], suffix: str) -> bytes:
    if suffix == '.pth':
        return _torch_bytes(state_dict)
    return safetensors.numpy.save(state_dict, metadata={'format': 'pt'})


def _torch_bytes(state_dict: dict[str, np.ndarray]) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in state_dict.items()}, buffer)
    return buffer.getvalue()
