"""Weights trained elsewhere: PyTorch's names and layouts to ours and back.

Loading is strict. A pretrained file of which half the names did not match, silently left at its
random initialisation, is the oldest trap of converted weights.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from pneumojax.config_schema import ENCODERS
from pneumojax.errors import UsageError
from pneumojax.models import download, torch_names, weight_files
from pneumojax.models.torch_names import Name
from pneumojax.models.unet import CLASSIFICATION_HEAD
from pneumojax.runs.run import Run

Tensors = Mapping[str, np.ndarray]  # PyTorch's name -> tensor
_LITE0_STEMS = ('conv_stem.weight', '_conv_stem.weight')  # timm's, the other packages'


class Shape(NamedTuple):
    """What the variables of a network say of it.

    Attributes:
      encoder: 'resnet34' or 'efficientnet_lite0'.
      channels: of the input.
      width: as in `UNet`; 0 for an EfficientNet without a decoder, which has none.
      stage_sizes: as in `UNet`.
    """

    encoder: str
    channels: int
    width: int
    stage_sizes: tuple[int, ...]


class Weights(NamedTuple):
    """What a file held.

    Attributes:
      kind: 'resnet34', 'efficientnet_lite0' or 'unet'.
      num_classes: of its classifier, or None where there is none.
      variables: {'params': ..., 'batch_stats': ...}, with as many input channels as in the file.
    """

    kind: str
    num_classes: int | None
    variables: dict[str, Any]


def load_resnet34(
    path: str | os.PathLike,
    *,
    channels: int = 3,
    num_classes: int | None = None,
    width: int = 64,
    stage_sizes: Sequence[int] = torch_names.STAGE_SIZES,
) -> dict[str, Any]:
    """Reads a ResNet34, number for number.

    Args:
      path: `.safetensors` or `.pth` with the names of torchvision, timm or Hugging Face, or a
        directory that `pneumojax.models.convert` wrote.
      channels: of the input, 1 or 3. For 1 the stem's kernel is summed over its channels, so that
        a grey image gives the features that it gives when repeated to three channels; see
        `pneumojax.models.normalize` for which normalisation that holds.
      num_classes: None for the encoder alone (a classifier in the file is left out), or 1000 for
        `ResNet34(num_classes=1000)`.
      width, stage_sizes: for networks smaller than ResNet34, as in `ResNet34`.

    Returns:
      {'params': ..., 'batch_stats': ...} of float32 numpy arrays for `ResNet34().apply`.

    Raises:
      UsageError: the file cannot be read (see `weight_files.read_tensors`), or is of another
        architecture: then every missing, unexpected and wrongly shaped tensor is listed.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        variables = _load_directory(path, 'resnet34', num_classes).variables
    else:
        tensors = weight_files.read_tensors(path)
        variables = _resnet34(tensors, path, num_classes, width, stage_sizes)
    return with_channels(variables, channels)


def load_smp_unet(
    path: str | os.PathLike,
    *,
    channels: int = 3,
    width: int = 64,
    stage_sizes: Sequence[int] = torch_names.STAGE_SIZES,
) -> dict[str, Any]:
    """Reads a whole `segmentation_models_pytorch.Unet` of one class; its names tell the encoder.

    It is `Unet('resnet34')` or `Unet('tu-tf_efficientnet_lite0')`.

    With a classification head (`aux_params={'classes': 1}`) it fits
    `UNet(classification_head=True)`.

    Args:
      path: its state dict as `.pth` or `.safetensors`, or a directory that
        `pneumojax.models.convert` or a training run wrote.
      channels: of the input, 1 or 3, as for `load_resnet34`.
      width, stage_sizes: for smaller networks, as in `UNet`.

    Returns:
      {'params': ..., 'batch_stats': ...} of float32 numpy arrays for `UNet().apply`.

    Raises:
      UsageError: as for `load_resnet34`.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        variables = _load_directory(path, 'unet').variables
    else:
        variables = _smp_unet(weight_files.read_tensors(path), path, width, stage_sizes)
    return with_channels(variables, channels)


def load(path: str | os.PathLike) -> Weights:
    """Reads an encoder or a U-Net, as the functions above do; its names tell which it is.

    Of an EfficientNet-Lite0, with the names of timm or of the package efficientnet_lite_pytorch,
    the classifier is left out.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return _load_directory(path)
    tensors = weight_files.read_tensors(path)
    stages = torch_names.STAGE_SIZES
    if any(name.startswith('decoder.') for name in tensors):
        deepest = tensors.get('decoder.blocks.0.conv1.0.weight')
        width = len(deepest) // 4 if deepest is not None and deepest.ndim else 64
        return Weights('unet', None, _smp_unet(tensors, path, width, stages))
    if any(stem in tensors for stem in _LITE0_STEMS):
        return Weights('efficientnet_lite0', None, _efficientnet_lite0(tensors, path))
    biases = [tensors[name].size for name in ('fc.bias', 'classifier.1.bias') if name in tensors]
    num_classes = biases[0] if biases else None
    return Weights('resnet34', num_classes, _resnet34(tensors, path, num_classes, 64, stages))


def initialize(variables: Mapping[str, Any], name_or_path: str) -> dict[str, Any]:
    """Puts pretrained weights into the freshly initialised variables of a `UNet`.

    Args:
      variables: {'params', 'batch_stats'} as from `UNet(...).init`; says width, stages and input
        channels.
      name_or_path: `config.model.pretrained`: 'imagenet', or the path of an encoder, which is
        replaced, or of a whole U-Net: everything is.

    Returns:
      Variables of the same structure.

    Raises:
      UsageError: as for `download.resolve` and `load_resnet34`, or the widths differ.
    """
    ours = network_shape(variables)
    loaded = load(download.resolve(name_or_path, encoder=ours.encoder))
    theirs = network_shape(loaded.variables)
    if theirs.encoder != ours.encoder:
        raise UsageError(
            f'config.model.pretrained={name_or_path} has the encoder {theirs.encoder}, this '
            f'network {ours.encoder}: set model.encoder alike'
        )
    if theirs.width and ours[2:] != theirs[2:]:
        raise UsageError(
            f'config.model.pretrained={name_or_path} has width {theirs.width} and stage_sizes '
            f'{theirs.stage_sizes}, this network {ours.width} and {ours.stage_sizes}: set '
            'model.width and model.stage_sizes alike'
        )
    fitted = with_channels(loaded.variables, ours.channels)
    if loaded.kind == 'unet':
        head = fitted['params'].pop(CLASSIFICATION_HEAD, None)
        if CLASSIFICATION_HEAD in variables['params']:  # stays random where they have none
            fitted['params'][CLASSIFICATION_HEAD] = head or variables['params'][CLASSIFICATION_HEAD]
        return fitted
    fitted['params'].pop('fc', None)
    return {
        collection: {**variables[collection], 'encoder': fitted[collection]}
        for collection in ('params', 'batch_stats')
    }


def to_torch(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The state dict that `segmentation_models_pytorch.Unet(...)` loads with strict=True.

    Its encoder is 'resnet34' or 'tu-tf_efficientnet_lite0'. With a classification head, it is
    that of `Unet(..., aux_params={'classes': 1})`, which returns both heads' logits; multiplying
    their probabilities (`unet.gate`) is then left to the caller.

    Args:
      variables: {'params', 'batch_stats'} of a `UNet`; its width and depth are read off.

    Returns:
      Name -> float32 array (int64 zeros for `num_batches_tracked`, which nothing reads).
    """
    has_head = CLASSIFICATION_HEAD in variables['params']
    names = torch_names.smp_unet(**network_shape(variables)._asdict(), classification_head=has_head)
    return {
        name.torch: np.zeros((), np.int64)
        if name.path is None
        else torch_names.torch_array(name, np.asarray(_at(variables, name.path), np.float32))
        for name in names
    }


def network_shape(variables: Mapping[str, Any]) -> Shape:
    """The shape of a `UNet` or of an encoder alone, read off its variables."""
    params = variables['params']
    encoder, decoder = params.get('encoder', params), params.get('decoder')
    *_, channels, width = encoder[_stem(encoder)]['kernel'].shape
    if _stem(encoder) == 'stem_conv':
        width = decoder['block0']['conv1']['kernel'].shape[-1] // 4 if decoder else 0
        return Shape('efficientnet_lite0', channels, width, torch_names.STAGE_SIZES)
    stages = [key.split('_')[0] for key in encoder if key.startswith('layer')]
    sizes = tuple(stages.count(stage) for stage in sorted(set(stages)))
    return Shape('resnet34', channels, width, sizes)


def with_channels(variables: dict[str, Any], channels: int) -> dict[str, Any]:
    """Fits the stem to 1 or 3 input channels, in place, so that grey images keep their features.

    Three channels become one by their sum; one becomes three by a third each.
    """
    if channels not in (1, 3):
        raise UsageError(f'model.channels is {channels}: expected 1 or 3')
    params = variables['params'].get('encoder', variables['params'])
    stem = params[_stem(params)]
    kernel = stem['kernel']
    if channels < kernel.shape[2]:
        kernel = kernel.sum(axis=2, keepdims=True, dtype=np.float64)
    elif channels > kernel.shape[2]:
        kernel = np.repeat(kernel.astype(np.float64) / channels, channels, axis=2)
    stem['kernel'] = np.asarray(kernel, np.float32)
    return variables


def _stem(encoder: Mapping[str, Any]) -> str:
    """The name of an encoder's first convolution."""
    return 'stem_conv' if 'stem_conv' in encoder else 'conv1'


def _resnet34(
    tensors: Tensors,
    path: pathlib.Path,
    num_classes: int | None,
    width: int,
    stage_sizes: Sequence[int],
) -> dict[str, Any]:
    hugging_face = any('embedder.embedder.' in name for name in tensors)
    bare = not any(name.startswith('resnet.') for name in tensors)  # ResNetModel, no classifier

    def theirs(torch: str) -> str:
        if not hugging_face:
            return torch
        name = torch_names.huggingface(torch)
        return name.removeprefix('resnet.') if bare else name

    channels = _stem_channels(tensors, theirs('conv1.weight'))
    names = torch_names.resnet34(channels, num_classes, width=width, stage_sizes=stage_sizes)
    classifier = {theirs('fc.weight'), theirs('fc.bias')}
    return _match(tensors, {theirs(n.torch): n for n in names}, classifier, path, 'ResNet34')


def _efficientnet_lite0(tensors: Tensors, path: pathlib.Path) -> dict[str, Any]:
    stem = next(stem for stem in _LITE0_STEMS if stem in tensors)
    names = torch_names.efficientnet_lite0(
        _stem_channels(tensors, stem), num_classes=1000, timm=stem == _LITE0_STEMS[0]
    )
    unread = {name.torch for name in names if name.path is None}  # the classifier is not needed
    return _match(tensors, {n.torch: n for n in names}, unread, path, 'EfficientNet-Lite0')


def _smp_unet(
    tensors: Tensors, path: pathlib.Path, width: int, stage_sizes: Sequence[int]
) -> dict[str, Any]:
    encoder, stem = 'resnet34', 'encoder.conv1.weight'
    if f'encoder.model.{_LITE0_STEMS[0]}' in tensors:
        encoder, stem = 'efficientnet_lite0', f'encoder.model.{_LITE0_STEMS[0]}'
    channels = _stem_channels(tensors, stem)
    has_head = f'{torch_names.SMP_CLASSIFICATION_HEAD}.weight' in tensors
    names = torch_names.smp_unet(
        channels, encoder=encoder, width=width, stage_sizes=stage_sizes,
        classification_head=has_head,
    )  # fmt: skip
    what = f'segmentation_models_pytorch Unet of one class with the encoder {encoder}'
    return _match(tensors, {n.torch: n for n in names}, set(), path, what)


def _stem_channels(tensors: Tensors, stem: str) -> int:
    """1 or 3, whichever the file has; 3, and so an error later, for anything else."""
    return 1 if stem in tensors and tensors[stem].shape[1:2] == (1,) else 3


def _match(
    tensors: Tensors, wanted: dict[str, Name], optional: set[str], path: pathlib.Path, what: str
) -> dict[str, Any]:
    """Takes every wanted tensor out of the file, or raises one error that lists all that differ."""
    missing = [k for k, name in wanted.items() if k not in tensors and name.path is not None]
    extra = sorted(k for k in tensors if k not in wanted and k not in optional)
    wrong = [
        f'{k} {tensors[k].shape} instead of {name.shape}'
        for k, name in wanted.items()
        if k in tensors and name.path is not None and tensors[k].shape != name.shape
    ]
    if missing or extra or wrong:
        lists = {'missing': missing, 'unexpected': extra, 'of another shape': wrong}
        raise UsageError(
            f'{path} is not a {what}: '
            + '; '.join(f'{k} ({len(v)}): {", ".join(v)}' for k, v in lists.items() if v)
        )
    variables = {}
    for theirs, name in wanted.items():
        if name.path is not None:
            tensor = tensors[theirs].astype(np.float32, copy=False)
            _put(variables, name.path, torch_names.flax_array(name, tensor))
    return variables


def _load_directory(
    path: pathlib.Path, kind: str | None = None, num_classes: int | None = None
) -> Weights:
    """Reads a converted checkpoint or a training run; `kind` is what it must be, if given."""
    run = Run(path)
    config = run.config()
    try:
        about = config.get('converted', {'kind': 'unet', 'num_classes': None})
        has_kind, has_classes = about['kind'], about['num_classes']
        shape = {'width': config.model.width, 'stage_sizes': tuple(config.model.stage_sizes)}
        channels, encoder = config.model.channels, config.model.get('encoder', 'resnet34')
        _check_network(encoder, channels, **shape)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f'{run / "config.json"} does not describe a network: {error}') from None
    if kind not in (None, has_kind) or num_classes not in (None, has_classes):
        raise UsageError(
            f'{path} holds a {has_kind} with {has_classes} classes: expected a {kind} with '
            f'{num_classes}'
        )
    if has_kind == 'unet':
        has_head = config.model.get('classification_head', 'none') != 'none'
        names = torch_names.smp_unet(
            channels, encoder=encoder, **shape, classification_head=has_head
        )
    elif has_kind == 'efficientnet_lite0':
        names = torch_names.efficientnet_lite0(channels)
    else:
        names = torch_names.resnet34(channels, has_classes, **shape)
    abstract = {}
    for name in names:
        if name.path is not None:
            leaf = jax.ShapeDtypeStruct(torch_names.flax_shape(name), np.float32)
            _put(abstract, name.path, leaf)
    step = run.checkpoints.latest_step()
    if step is None:
        raise UsageError(f'{path} has no complete checkpoint')
    variables = jax.tree.map(np.asarray, run.checkpoints.load(step, abstract))
    if kind == 'resnet34' and num_classes is None:
        variables['params'].pop('fc', None)
    return Weights(has_kind, has_classes, variables)


def _check_network(encoder: Any, channels: Any, width: Any, stage_sizes: Sequence[Any]) -> None:
    """Raises ValueError where a config.json, perhaps a foreign one, describes an absurd network."""
    numbers = (channels, width, *stage_sizes)
    if len(stage_sizes) != 4 or not all(type(n) is int and 1 <= n <= 1024 for n in numbers):
        raise ValueError(f'channels, width and four stage_sizes are {numbers}')
    if encoder not in ENCODERS:
        raise ValueError(f'its encoder is {encoder!r}: expected one of {ENCODERS}')


def _put(tree: dict[str, Any], path: tuple[str, ...], leaf: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = leaf


def _at(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree
