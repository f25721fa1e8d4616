"""Foreign weights -> a run directory, usable as `init_from` or `model.pretrained`."""

import os
import pathlib

import jax
import ml_collections

from pneumojax import __version__
from pneumojax import config as config_lib
from pneumojax.errors import UsageError
from pneumojax.models import download, pretrained, weight_files
from pneumojax.models.unet import CLASSIFICATION_HEAD
from pneumojax.runs import checkpoints
from pneumojax.runs.run import Run
from pneumojax.system import atomic
from pneumojax.system.progress import log


def convert(
    source: str, output: str | os.PathLike, config: ml_collections.ConfigDict | None = None
) -> pathlib.Path:
    """Converts an encoder or a whole U-Net.

    Args:
      source: 'imagenet' (a ResNet34's), or a file that `pretrained.load` reads; its tensors' names
        tell what it is. A ResNet34's classifier is kept.
      output: a directory that does not exist or is empty. It appears only when it is complete:
        `config.json`, and `checkpoints/0` with the items `params` and `batch_stats`.
      config: a configuration to write, such as that of the stage the weights will be used in, with
        its `model.channels`, `width`, `stage_sizes` and `pretrained` set to what was converted.
        Without it `config.json` has `name`, `model` and `converted` only.

    Returns:
      The directory.

    Raises:
      UsageError: the source cannot be read, or the output cannot be written or is not empty.
    """
    path, output = download.resolve(source), pathlib.Path(output)
    if path.is_dir():
        raise UsageError(f'--input={source} is a directory: expected a file of PyTorch weights')
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f'--output={output} exists and is not an empty directory; give another')
    weights = pretrained.load(path)
    config = _describe(path, weights, config)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic.new_folder(output) as unfinished:
            run = Run(unfinished)
            with checkpoints.Saver(run.checkpoints, keep=1) as saver:
                saver.save(0, weights.variables)
            (run / 'config.json').write_text(config_lib.to_json(config))
    except (OSError, checkpoints.NotWritten) as error:
        cause = error.strerror if isinstance(error, OSError) else error.cause
        raise UsageError(f'--output={output} cannot be written: {cause}') from None
    log.info('%s', _report(weights, path, output))
    return output


def _report(weights: pretrained.Weights, path: pathlib.Path, output: pathlib.Path) -> str:
    """What was written, and the option that trains from it."""
    arrays = jax.tree.leaves(weights.variables)
    network, key = {
        'unet': ('U-Net', 'init_from'),
        'resnet34': ('ResNet34', 'model.pretrained'),
        'efficientnet_lite0': ('EfficientNet-Lite0', 'model.pretrained'),
    }[weights.kind]
    shape = pretrained.network_shape(weights.variables)
    return (
        f'{output}: {len(arrays)} arrays, {sum(array.size for array in arrays):,} numbers, of the '
        f'{network} in {path}; to train from it: --config=NAME --config.{key}={output}'
        + ' --config.init_weights=last' * (key == 'init_from')
        + f' --config.model.encoder={shape.encoder}' * (shape.encoder != 'resnet34')
        + f' --config.model.channels={shape.channels}' * (shape.channels != 3)
        + '; model.normalization has to be the one that it was trained with (ImageNet: imagenet; '
        'of an EfficientNet: symmetric)'
    )


def _describe(
    path: pathlib.Path, weights: pretrained.Weights, config: ml_collections.ConfigDict | None
) -> ml_collections.ConfigDict:
    shape = pretrained.network_shape(weights.variables)
    network = {**shape._asdict(), 'width': shape.width or 64, 'pretrained': ''}
    if CLASSIFICATION_HEAD in weights.variables['params']:
        network['classification_head'] = 'auxiliary'
    if config is None:
        config = {'name': path.stem, 'model': {}}
    else:
        config = config.copy_and_resolve_references().to_dict()
    config['model'] = {**config['model'], **network}
    config['converted'] = {
        'kind': weights.kind,
        'num_classes': weights.num_classes,
        'file': path.name,
        'sha256': weight_files.sha256(path),
        'pneumojax': __version__,
    }
    return ml_collections.ConfigDict(config)
