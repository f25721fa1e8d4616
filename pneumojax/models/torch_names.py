"""The name table: what PyTorch projects call each tensor, and where it lives in our variables.

`third_party/*/*.csv` hold the same tables written out, as a record that people can read; a test
keeps them equal to what these functions give. The package itself reads no files of third_party.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pneumojax.models import efficientnet
from pneumojax.models.unet import CLASSIFICATION_HEAD, decoder_filters

STAGE_SIZES = (3, 4, 6, 3)
LITE0_HEAD = 1280  # channels of the last convolution before EfficientNet-Lite0's classifier
SMP_CLASSIFICATION_HEAD = 'classification_head.3'  # after pooling, flattening and dropout


class Name(NamedTuple):
    """One tensor.

    Attributes:
      torch: PyTorch's name, such as 'layer1.0.bn1.running_var'.
      shape: PyTorch's shape; convolution kernels are [out, in, height, width].
      path: ours, such as ('batch_stats', 'layer1_0', 'bn1', 'var'), or None for what is not read:
        counters of batches, and an EfficientNet's layers after its last feature map.
    """

    torch: str
    shape: tuple[int, ...]
    path: tuple[str, ...] | None


def resnet34(
    channels: int = 3,
    num_classes: int | None = None,
    *,
    width: int = 64,
    stage_sizes: Sequence[int] = STAGE_SIZES,
) -> list[Name]:
    """The tensors of a ResNet34, in the order of torchvision's state dict.

    Args:
      channels: of the input images.
      num_classes: of the classifier, or None for none.
      width: channels of the first stage (64 is ResNet34).
      stage_sizes: blocks of each stage.

    Returns:
      torchvision's names (timm's are the same) with paths into the variables of `ResNet34`.
    """
    names = _conv('conv1', ('conv1',), width, channels, 7)
    names += _batch_norm('bn1', ('bn1',), width)
    inputs = width
    for stage, blocks in enumerate(stage_sizes):
        filters = width * 2**stage
        for block in range(blocks):
            theirs, ours = f'layer{stage + 1}.{block}', f'layer{stage + 1}_{block}'
            for i, fan_in in ((1, inputs), (2, filters)):
                names += _conv(f'{theirs}.conv{i}', (ours, f'conv{i}'), filters, fan_in, 3)
                names += _batch_norm(f'{theirs}.bn{i}', (ours, f'bn{i}'), filters)
            if inputs != filters:
                shortcut = f'{theirs}.downsample'
                names += _conv(f'{shortcut}.0', (ours, 'downsample_conv'), filters, inputs, 1)
                names += _batch_norm(f'{shortcut}.1', (ours, 'downsample_bn'), filters)
            inputs = filters
    if num_classes is not None:
        names += [
            Name('fc.weight', (num_classes, inputs), ('params', 'fc', 'kernel')),
            Name('fc.bias', (num_classes,), ('params', 'fc', 'bias')),
        ]
    return names


def efficientnet_lite0(
    channels: int = 3, num_classes: int | None = None, *, timm: bool = True
) -> list[Name]:
    """The tensors of an EfficientNet-Lite0, in the order of timm's state dict.

    Args:
      channels: of the input images.
      num_classes: of the classifier, or None for none, nor the layers before it, which follow the
        last feature map.
      timm: with the names of timm's `tf_efficientnet_lite0`; otherwise with those of the packages
        `efficientnet_lite_pytorch` and `efficientnet_pytorch`.

    Returns:
      Names with paths into the variables of `EfficientNetLite0`.
    """
    if timm:
        stem, head = ('conv_stem', 'bn1'), ('conv_head', 'bn2', 'classifier')
    else:
        stem, head = ('_conv_stem', '_bn0'), ('_conv_head', '_bn1', '_fc')
    inputs, number = efficientnet.STEM, 0
    names = _conv(stem[0], ('stem_conv',), inputs, channels, 3)
    names += _batch_norm(stem[1], ('stem_bn',), inputs)
    for s, stage in enumerate(efficientnet.STAGES):
        for b in range(stage.blocks):
            wide = inputs * stage.expand
            layers = [
                ('expand', wide, inputs, 1),
                ('depthwise', wide, 1, stage.kernel),
                ('project', stage.filters, wide, 1),
            ][stage.expand == 1 :]
            if timm:
                prefix, norms = f'blocks.{s}.{b}', ('bn1', 'bn2', 'bn3')[: len(layers)]
                convs = ['conv_pw', 'conv_dw', 'conv_pwl']
                convs = ['conv_dw', 'conv_pw'] if stage.expand == 1 else convs
            else:
                prefix, norms = f'_blocks.{number}', ('_bn0', '_bn1', '_bn2')[-len(layers) :]
                convs = [f'_{layer}_conv' for layer, *_ in layers]
            for (layer, *shape), conv, norm in zip(layers, convs, norms, strict=True):
                ours = f'block{number}'
                names += _conv(f'{prefix}.{conv}', (ours, f'{layer}_conv'), *shape)
                names += _batch_norm(f'{prefix}.{norm}', (ours, f'{layer}_bn'), shape[0])
            inputs, number = stage.filters, number + 1
    if num_classes is not None:
        unread = [
            *_conv(head[0], (), LITE0_HEAD, inputs, 1),
            *_batch_norm(head[1], (), LITE0_HEAD),
            Name(f'{head[2]}.weight', (num_classes, LITE0_HEAD), None),
            Name(f'{head[2]}.bias', (num_classes,), None),
        ]
        names += [name._replace(path=None) for name in unread]
    return names


def smp_unet(
    channels: int = 3,
    *,
    encoder: str = 'resnet34',
    width: int = 64,
    stage_sizes: Sequence[int] = STAGE_SIZES,
    classification_head: bool = False,
) -> list[Name]:
    """The tensors of segmentation_models_pytorch's `Unet('resnet34')`, in its state dict's order.

    Args: as for `resnet34`, and
      encoder: 'resnet34', or 'efficientnet_lite0' for `Unet('tu-tf_efficientnet_lite0')`. In smp's
        own `timm-tf_efficientnet_lite0` (0.6.0) padding and epsilon are not those of the weights.
      classification_head: with that of `aux_params={'classes': 1}`.

    Returns:
      Its names with paths into the variables of `pneumojax.models.unet.UNet`.
    """
    if encoder == 'resnet34':
        prefix, of_encoder = 'encoder', resnet34(channels, width=width, stage_sizes=stage_sizes)
        features = [width, width, width * 2, width * 4, width * 8]
    else:
        prefix, of_encoder = 'encoder.model', efficientnet_lite0(channels)
        features = list(efficientnet.FEATURES)
    names = [
        Name(f'{prefix}.{torch}', shape, path and (path[0], 'encoder', *path[1:]))
        for torch, shape, path in of_encoder
    ]
    deepest = inputs = features.pop()
    skips = [*reversed(features), 0]
    for block, (skip, filters) in enumerate(zip(skips, decoder_filters(width), strict=True)):
        theirs, ours = f'decoder.blocks.{block}', ('decoder', f'block{block}')
        for i, fan_in in ((1, inputs + skip), (2, filters)):
            names += _conv(f'{theirs}.conv{i}.0', (*ours, f'conv{i}'), filters, fan_in, 3)
            names += _batch_norm(f'{theirs}.conv{i}.1', (*ours, f'bn{i}'), filters)
        inputs = filters
    names += [
        Name('segmentation_head.0.weight', (1, inputs, 3, 3), ('params', 'head', 'kernel')),
        Name('segmentation_head.0.bias', (1,), ('params', 'head', 'bias')),
    ]
    if classification_head:
        ours = ('params', CLASSIFICATION_HEAD)
        names += [
            Name(f'{SMP_CLASSIFICATION_HEAD}.weight', (1, deepest), (*ours, 'kernel')),
            Name(f'{SMP_CLASSIFICATION_HEAD}.bias', (1,), (*ours, 'bias')),
        ]
    return names


def huggingface(name: str) -> str:
    """Hugging Face's name (`ResNetForImageClassification`) for one of torchvision's names."""
    name = re.sub(r'^conv1\.', 'resnet.embedder.embedder.convolution.', name)
    name = re.sub(r'^bn1\.', 'resnet.embedder.embedder.normalization.', name)
    name = re.sub(r'^fc\.', 'classifier.1.', name)

    def block(match: re.Match) -> str:
        stage, index, rest = int(match[1]) - 1, match[2], match[3]
        rest = re.sub(r'^conv(\d)', lambda m: f'layer.{int(m[1]) - 1}.convolution', rest)
        rest = re.sub(r'^bn(\d)', lambda m: f'layer.{int(m[1]) - 1}.normalization', rest)
        rest = rest.replace('downsample.0', 'shortcut.convolution')
        rest = rest.replace('downsample.1', 'shortcut.normalization')
        return f'resnet.encoder.stages.{stage}.layers.{index}.{rest}'

    return re.sub(r'^layer(\d)\.(\d+)\.(.*)', block, name)


def flax_shape(name: Name) -> tuple[int, ...]:
    """The shape that a tensor has in our variables."""
    return tuple(name.shape[i] for i in _axes(name, len(name.shape)))


def flax_array(name: Name, tensor: np.ndarray) -> np.ndarray:
    """PyTorch's tensor as ours: kernels to [height, width, in, out], dense ones to [in, out]."""
    return tensor.transpose(_axes(name, tensor.ndim)).copy()  # contiguous, and 0-d stays 0-d


def torch_array(name: Name, array: np.ndarray) -> np.ndarray:
    """The inverse of `flax_array`."""
    return array.transpose(np.argsort(_axes(name, array.ndim)).astype(int)).copy()


def _axes(name: Name, ndim: int) -> tuple[int, ...]:
    if name.path is not None and name.path[-1] == 'kernel':
        return {4: (2, 3, 1, 0), 2: (1, 0)}[ndim]
    return tuple(range(ndim))


def _conv(torch: str, path: tuple[str, ...], filters: int, fan_in: int, size: int) -> list[Name]:
    return [Name(f'{torch}.weight', (filters, fan_in, size, size), ('params', *path, 'kernel'))]


def _batch_norm(torch: str, path: tuple[str, ...], filters: int) -> list[Name]:
    return [
        Name(f'{torch}.weight', (filters,), ('params', *path, 'scale')),
        Name(f'{torch}.bias', (filters,), ('params', *path, 'bias')),
        Name(f'{torch}.running_mean', (filters,), ('batch_stats', *path, 'mean')),
        Name(f'{torch}.running_var', (filters,), ('batch_stats', *path, 'var')),
        Name(f'{torch}.num_batches_tracked', (), None),
    ]
