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
from pneumojax.system.atomic import refuse_existing, write_new


def export_torch(variables: Mapping[str, Any], path: str | os.PathLike) -> pathlib.Path:
    """Writes one state dict for `segmentation_models_pytorch.Unet('resnet34')`, strict=True.

    Args:
      variables: {'params', 'batch_stats'} of a `UNet`.
      path: ends in `.safetensors`, or in `.pth`, which needs PyTorch.

    Returns:
      The path.

    Raises:
      UsageError: the file exists already, cannot be written, or needs PyTorch.
    """
    path = pathlib.Path(path)
    if path.suffix not in (weight_files.SAFETENSORS, '.pth'):
        raise UsageError(f'{path}: expected a name ending in {weight_files.SAFETENSORS} or .pth')
    if path.suffix == '.pth' and not weight_files.has_torch():
        raise UsageError(
            f'{path}: PyTorch is not installed; pip install torch, or write .safetensors'
        )
    state_dict = pretrained.to_torch(variables)
    if path.suffix == '.pth':
        content = _torch_bytes(state_dict)
    else:
        content = safetensors.numpy.save(state_dict, metadata={'format': 'pt'})
    write_new(path, content)
    return path


def export_torch_all(variables: Mapping[str, Any], folder: str | os.PathLike) -> list[pathlib.Path]:
    """Writes `unet.safetensors`, and `unet.pth` if PyTorch is installed; see `export_torch`.

    Returns:
      The paths written.

    Raises:
      UsageError: one of them exists already (then neither is written) or cannot be written.
    """
    folder = pathlib.Path(folder)
    suffixes = [weight_files.SAFETENSORS] + (['.pth'] if weight_files.has_torch() else [])
    paths = [folder / f'unet{suffix}' for suffix in suffixes]
    refuse_existing(*paths)
    return [export_torch(variables, path) for path in paths]


def _torch_bytes(state_dict: dict[str, np.ndarray]) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in state_dict.items()}, buffer)
    return buffer.getvalue()
