"""The real implementations, for tests that compare with them; each test is skipped without them."""

import importlib
import sys

import numpy as np
import pytest


def require(name: str):
    """Imports torch, torchvision, timm, transformers or segmentation_models_pytorch, or skips."""
    torch = pytest.importorskip('torch', reason=f'compares with {name}, which needs PyTorch')
    if name == 'torch':
        return torch
    if name != 'transformers':
        _import_torchvision(torch)
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as e:
        pytest.skip(f'compares with {name}, which cannot be imported: {e}')


def _import_torchvision(torch) -> None:
    """Imports torchvision even where its compiled operators do not fit this build of torch.

    The wheels of the package index are compiled against CUDA builds. Beside a CPU build the
    operators do not load, and the import fails because two of them are not declared. The networks
    use none of them, so declaring the two is enough.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for module in [m for m in sys.modules if m.split('.')[0] == 'torchvision']:
            del sys.modules[module]
        library = torch.library.Library('torchvision', 'FRAGMENT')
        for operator in ('nms', 'qnms'):
            library.define(f'{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        _keep.append(library)  # its declarations go with it
    except ImportError:
        pass  # whoever needs it says so


_keep = []


def randomize(module, seed: int):
    """Gives a network random weights, and BatchNorm random statistics; evaluation mode."""
    torch = require('torch')
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith('num_batches_tracked'):
                continue
            if tensor.ndim > 1:
                fan_in = tensor[0].numel()
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * fan_in**-0.5)
            elif name.endswith(('weight', 'running_var')):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            else:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
    return module.eval()


def to_torch(images: np.ndarray):
    """[B, H, W, C] -> tensor [B, C, H, W]."""
    return require('torch').from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def from_torch(tensor) -> np.ndarray:
    """Tensor [B, C, H, W] -> [B, H, W, C]."""
    array = tensor.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def relative_error(actual, expected) -> float:
    """The largest difference as a part of the largest value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())
