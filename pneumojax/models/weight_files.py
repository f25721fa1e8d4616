"""Files of PyTorch weights -> numpy arrays, by ways of reading that cannot run code."""

import hashlib
import os
import pathlib
import re
import zipfile
from collections.abc import Iterable

import ml_dtypes  # noqa: F401  (lets numpy hold the bfloat16 of a .safetensors file)
import numpy as np
import safetensors
import safetensors.numpy

from pneumojax.errors import UsageError, first_line
from pneumojax.models import torch_file
from pneumojax.system import limits

SAFETENSORS = '.safetensors'
PICKLED = ('.pth', '.pt', '.bin', '.ckpt')
_PREFIXES = ('module.', 'model.', 'net.')  # of DataParallel, Lightning and other wrappers
# torchvision and timm end a file's name with the first digits of its SHA-256.
_HASH_IN_NAME = re.compile(r'^resnet34[\w.]*-([0-9a-f]{8})\.\w+$')


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the tensors of a `.safetensors` file or of a PyTorch state dict.

    PyTorch is not needed. A state dict may stand under the key 'state_dict' or 'model_state_dict',
    as training programs such as Lightning write it, beside anything else, which is not read. Of its
    names, `torch.compile`'s '_orig_mod.' is removed, and so are the prefixes 'module.', 'model.'
    and 'net.' that all of them share.

    Args:
      path: the file. If it is named like torchvision's own files, `resnet34-<hash>.pth`, its
        content must have that hash.

    Returns:
      Name -> array, floats as float32.

    Raises:
      UsageError: the file is missing, damaged, of another format, not the file that its name says,
        or holds anything other than tensors. Nothing in it is ever executed.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UsageError(f'{path}: there is no such file of weights')
    if path.suffix not in (SAFETENSORS, *PICKLED):
        raise UsageError(
            f'{path}: cannot tell what this is; expected a name ending in {SAFETENSORS} or in '
            f'{", ".join(PICKLED)}'
        )
    try:
        limits.check_file(path, limits.MAX_WEIGHT_BYTES)
    except limits.TooLarge as error:
        raise UsageError(f'{path}: {error}: no ResNet34 or U-Net of one') from None
    _check_hash_in_name(path)
    tensors = _read_safetensors(path) if path.suffix == SAFETENSORS else _read_pickled(path)
    tensors = _without_prefixes(path, tensors)
    broken = sorted(k for k, v in tensors.items() if v.dtype.kind == 'f' and not _finite(v))
    if broken:
        raise UsageError(f'{path}: values that are not finite in {", ".join(broken)}')
    return tensors


def sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest()


def has_torch() -> bool:
    """Whether PyTorch can be imported here."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def _check_hash_in_name(path: pathlib.Path) -> None:
    match = _HASH_IN_NAME.match(path.name)
    if match and not (actual := sha256(path)).startswith(match[1]):
        raise UsageError(
            f'{path}: its SHA-256 should start with {match[1]}, as its name says, but is '
            f'{actual[:8]}...: the file is damaged or another one; get it again, '
            'or rename it if the last part of its name is no hash'
        )


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        tensors = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise UsageError(
            f'{path}: not a safetensors file, or cut off ({first_line(error)}); get it again'
        ) from None
    return {name: _as_float32(tensor) for name, tensor in tensors.items()}


def _read_pickled(path: pathlib.Path) -> dict[str, np.ndarray]:
    _check_inflated(path)
    try:
        file = torch_file.TorchFile(path)
        content = file.content
        for key in ('state_dict', 'model_state_dict'):
            if isinstance(content, dict) and isinstance(content.get(key), dict):
                content = content[key]
        named = content if isinstance(content, dict) else {}
        tensors = {str(k): v for k, v in named.items() if isinstance(v, torch_file.Tensor)}
        if content != {} and not tensors:
            raise UsageError(
                f'{path}: expected a state dict (names and tensors), alone or under the key '
                "'state_dict'; save model.state_dict()"
            )
        if others := sorted(str(k) for k in named if str(k) not in tensors):
            raise UsageError(
                f'{path}: {", ".join(others)[:200]}: no dense tensors of numbers; what else they '
                'are was not looked at, because such files can run code; save model.state_dict() '
                'of an unquantised model'
            )
        # A view of one number can claim any shape.
        size = sum(tensor.nbytes for tensor in tensors.values())
        if size > limits.MAX_WEIGHT_BYTES:
            raise UsageError(f'{path}: its tensors claim {size} bytes: no ResNet34 or U-Net of one')
        return {name: _as_float32(file.array(tensor)) for name, tensor in tensors.items()}
    except torch_file.Malformed as error:
        raise UsageError(
            f'{path}: not a PyTorch file, or cut off ({error}); get it again'
        ) from None
    except OSError as error:
        raise UsageError(f'{path} cannot be read: {error.strerror}') from None


def _without_prefixes(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The names as the network itself has them, whatever it was wrapped in when it was saved."""
    names = {
        name: re.sub(r'(^|\.)_orig_mod\.', r'\1', name)
        for name in tensors
        if name != 'n_averaged'  # the counter of PyTorch's AveragedModel
    }
    while names and (shared := [p for p in _PREFIXES if _all_start(names.values(), p)]):
        names = {name: short.removeprefix(shared[0]) for name, short in names.items()}
    if len({*names.values()}) < len(names):
        raise UsageError(f'{path}: holds a network twice, once compiled; save one of them')
    return {short: tensors[name] for name, short in names.items()}


def _all_start(names: Iterable[str], prefix: str) -> bool:
    return all(name.startswith(prefix) for name in names)


def _check_inflated(path: pathlib.Path) -> None:
    """PyTorch stores what it archives as it is: an archive that inflates is a trap."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return  # the reader will say what is wrong with it
    if size > 4 * path.stat().st_size + (1 << 20):
        raise UsageError(
            f'{path}: inflates to {size} bytes, which no PyTorch archive does; get it again'
        )


def _as_float32(tensor: np.ndarray) -> np.ndarray:
    integer = np.issubdtype(tensor.dtype, np.integer) or tensor.dtype == bool
    return tensor if integer else tensor.astype(np.float32)


def _finite(tensor: np.ndarray) -> bool:
    return bool(np.isfinite(tensor).all())
