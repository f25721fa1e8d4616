"""A run's configuration: checked once at the start, written to and read from `config.json`."""

import json
import re
from typing import Any

import ml_collections

from pneumojax.errors import UsageError

NORMALIZATIONS = ('unit', 'imagenet', 'imagenet_grey')  # what each is: models/normalize.py

ALL_FOLDS = -1  # as data.fold: every fold, each in a folder of its own, see `layout`

# Keys that say where and how fast, not what: a run may be continued with other values of them.
FREE_KEYS = (
    'data.root',
    'data.masks',
    'data.table',
    'data.patients',
    'data.cache',
    'data.workers',
    'data.on_device',
    'checkpoint.keep',
    'log_every_steps',
    'evaluation.batch_size',
    'evaluation.ablation_seeds',
)


# Keys that had another name before.
RENAMED = {
    'swa': 'averaging',
    'augment.tone': 'augment.intensity',
    'loss.dice_over': 'loss.dice_reduction',
    'loss.image': 'loss.classification',
    'model.image_head': 'model.classification_head',
}
# Keys younger than some runs, with the values at which they change nothing.
ADDED = {
    'data.on_device': False,
    'data.masks': '',
    'data.table': '',
    'model.frozen_batch_norm': False,
    'model.classification_head': 'none',
    'loss.dice_reduction': 'batch',
    'loss.focal': 0.0,
    'loss.focal_gamma': 2.0,
    'loss.classification': 0.0,
    'augment.window': 0,
    'augment.window_on_lesion': 0.0,
    'evaluation.regions': False,
    'evaluation.ablation_seeds': 3,
}
# Whole numbers and the most each may be: beyond, a damaged or foreign config asks for more memory
# or time than any machine has.
_WHOLE = {
    'seed': 1 << 32, 'image_size': 4096, 'batch_size': 1 << 16, 'num_epochs': 10**6,
    'log_every_steps': 10**9, 'data.fold': 1000, 'data.num_folds': 1000,
    'data.split_seed': 1 << 32, 'data.num_examples': 10**9, 'data.workers': 1000,
    'data.phantoms.num_images': 10**7, 'data.phantoms.size': 8192, 'data.phantoms.seed': 1 << 32,
    'model.channels': 3, 'model.width': 1024, 'optimizer.accumulate': 10**6,
    'averaging.every_steps': 10**9, 'averaging.bn_examples': 10**9,
    'evaluation.batch_size': 1 << 16, 'evaluation.every_epochs': 10**6,
    'evaluation.bootstrap': 10**6,
    'checkpoint.every_epochs': 10**6, 'checkpoint.keep': 10**6,
}  # fmt: skip
_MOST_BLOCKS = 100  # of one stage of the encoder


def _require(config, key: str, ok: bool, expected: str) -> None:
    if not ok:
        value = ' '.join(repr(get(config, key)).split())  # a ConfigDict's has several lines
        raise UsageError(f'config.{key} is {value}: expected {expected}')


def get(config, key: str) -> Any:
    """The value of a dotted key, such as 'data.root'."""
    for part in key.split('.'):
        config = config[part]
    return config


def check(config: ml_collections.ConfigDict) -> None:
    """Raises UsageError for the first value that cannot work, naming its key."""
    try:
        _check(config)
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
    ) as error:  # a key is missing or of another type
        message = ' '.join(str(error).split())
        raise UsageError(
            f'the config cannot be used: {message}; start from configs/base.py'
        ) from None


def _check(config) -> None:
    def require(key, ok, expected):
        _require(config, key, ok, expected)

    def share(key):
        value = get(config, key)
        require(key, 0 <= value <= 1, 'a number from 0 to 1')

    for key, most in _WHOLE.items():
        value = get(config, key)
        require(key, type(value) is int and value <= most, f'a whole number of at most {most}')
    named = isinstance(config.name, str) and re.fullmatch(r'[^./\\\0][^/\\\0]*', config.name)
    require('name', named, 'a name without slashes and without a dot in front')
    require('seed', config.seed >= 0, '0 or more')
    require('image_size', 16 <= config.image_size <= 4096, 'pixels, from 16 to 4096')
    require('batch_size', config.batch_size >= 1, 'at least 1')
    require('num_epochs', config.num_epochs >= 1, 'at least 1')
    require('init_weights', config.init_weights in ('average', 'last'), "'average' or 'last'")
    require('log_every_steps', config.log_every_steps >= 1, 'at least 1')

    data = config.data
    for key in ('data.root', 'data.masks', 'data.table', 'data.patients', 'data.cache'):
        require(key, isinstance(get(config, key), str), 'a path as text')
    require('data.num_folds', data.num_folds >= 2, 'at least 2')
    folds = f'0 to {data.num_folds - 1}, or -1 for all of them'
    require('data.fold', ALL_FOLDS <= data.fold < data.num_folds, folds)
    require('data.split_seed', data.split_seed >= 0, '0 or more')
    require('data.num_examples', data.num_examples >= 0, '0 (all) or more')
    require('data.on_device', data.on_device in (True, False), 'True or False')
    require('data.workers', data.workers >= 0, '0 (threads of this process) or more')
    if data.phantoms.num_images:
        require('data.phantoms.size', data.phantoms.size >= 32, 'at least 32 pixels')
        share('data.phantoms.positive_share')

    model = config.model
    require('model.channels', model.channels in (1, 3), '1 or 3')
    require('model.width', model.width >= 4, 'at least 4')
    kinds = ('float32', 'bfloat16', 'float64')
    require('model.dtype', model.dtype in kinds, f'one of {kinds}')
    require(
        'model.normalization', model.normalization in NORMALIZATIONS, f'one of {NORMALIZATIONS}'
    )
    require(
        'model.stage_sizes',
        len(model.stage_sizes) == 4
        and all(type(n) is int and 1 <= n <= _MOST_BLOCKS for n in model.stage_sizes),
        f'four numbers of blocks, each 1 to {_MOST_BLOCKS}',
    )

    heads = ('none', 'auxiliary', 'gate')
    require('model.classification_head', model.classification_head in heads, f'one of {heads}')
    started = bool(model.pretrained or config.init_from or config.stages)
    require(
        'model.frozen_batch_norm', started or not model.frozen_batch_norm,
        'False for random weights, which have no statistics yet: set model.pretrained or init_from',
    )  # fmt: skip

    optimizer = config.optimizer
    require(
        'optimizer.name', optimizer.name in ('sgd', 'adam', 'adamw'), "'sgd', 'adam' or 'adamw'"
    )
    require('optimizer.learning_rate', optimizer.learning_rate > 0, 'a number above 0')
    require('optimizer.final_learning_rate', optimizer.final_learning_rate >= 0, '0 or more')
    require('optimizer.weight_decay', optimizer.weight_decay >= 0, '0 or more')
    require('optimizer.clip_norm', optimizer.clip_norm >= 0, '0 (off) or more')
    require('optimizer.accumulate', optimizer.accumulate >= 1, 'at least 1')
    for key in ('optimizer.warmup_epochs', 'optimizer.freeze_encoder_epochs'):
        require(key, 0 <= get(config, key) <= config.num_epochs, '0 to num_epochs')
    require('optimizer.momentum', 0 <= optimizer.momentum < 1, 'from 0 to below 1')

    loss = config.loss
    for key in ('bce', 'dice', 'focal', 'focal_gamma', 'classification', 'smooth'):
        require(f'loss.{key}', loss[key] >= 0, '0 or more')
    require('loss', loss.bce + loss.dice + loss.focal > 0, 'at least one weight above 0')
    require('loss.dice_reduction', loss.dice_reduction in ('batch', 'image'), "'batch' or 'image'")
    expected = 'above 0 exactly where model.classification_head is not none'
    require(
        'loss.classification',
        (loss.classification > 0) == (model.classification_head != 'none'),
        expected,
    )

    _check_augment(config.augment, require, share)
    window = config.augment.window
    expected = f'0 (whole images), or pixels from 16 to image_size ({config.image_size})'
    require('augment.window', window == 0 or 16 <= window <= config.image_size, expected)

    for value in config.sampling.positive_share:
        require('sampling.positive_share', 0 < value <= 1, 'shares above 0, up to 1')

    require(
        'averaging.kind',
        config.averaging.kind in ('none', 'mean', 'ema'),
        "'none', 'mean' or 'ema'",
    )
    require(
        'averaging.start', config.averaging.start < config.num_epochs, 'an epoch before num_epochs'
    )
    require(
        'averaging.every_steps', config.averaging.every_steps >= 0, '0 (once per epoch) or more'
    )
    require('averaging.decay', 0 < config.averaging.decay < 1, 'between 0 and 1')
    expected = '0 (all training images) or more, or -1 for those of the last weights'
    require('averaging.bn_examples', config.averaging.bn_examples >= -1, expected)

    known_flips = {'horizontal', 'vertical'}
    require('tta.flips', set(config.tta.flips) <= known_flips, f'names from {sorted(known_flips)}')
    require(
        'evaluation.rule',
        config.evaluation.rule in ('single', 'triplet', 'half'),
        "'single', 'triplet' or 'half'",
    )
    require(
        'evaluation.weights', config.evaluation.weights in ('average', 'last'),
        "'average' or 'last'",
    )  # fmt: skip
    require('evaluation.batch_size', config.evaluation.batch_size >= 1, 'at least 1')
    require('evaluation.every_epochs', config.evaluation.every_epochs >= 0, '0 (never) or more')
    require('evaluation.ablation_seeds', config.evaluation.ablation_seeds >= 1, 'at least 1')
    require('evaluation.bootstrap', config.evaluation.bootstrap >= 100, 'at least 100 samples')
    require('checkpoint.every_epochs', config.checkpoint.every_epochs >= 1, 'at least 1')
    require('checkpoint.keep', config.checkpoint.keep >= 1, 'at least 1')

    known = flatten(config).keys()
    for stage, changes in config.stages.items():
        for key in flatten(changes):
            if key not in known:
                raise UsageError(
                    f'config.stages.{stage}.{key}: there is no key {key!r} to change; '
                    'see configs/base.py'
                )


def _check_augment(augment, require, share) -> None:
    for name in (
        'flip',
        'vertical_flip',
        'intensity',
        'warp',
        'affine',
        'crop',
        'window_on_lesion',
    ):
        share(f'augment.{name}')
    for name in ('contrast', 'brightness', 'grid_distort', 'scale'):
        require(f'augment.{name}', 0 <= augment[name] < 1, 'at least 0 and below 1')
    for name in ('elastic_alpha', 'elastic_sigma', 'elastic_affine', 'shift', 'rotate',
                 'optical_distort', 'optical_shift'):  # fmt: skip
        require(f'augment.{name}', augment[name] >= 0, 'at least 0')
    low, high = augment.gamma
    require('augment.gamma', 0 < low <= high, '(low, high) per cent above 0')
    require('augment.grid_steps', augment.grid_steps >= 1, 'a whole number of at least 1')
    require('augment.crop_min', 0 < augment.crop_min <= 1, 'a share above 0 and up to 1')
    known = ('constant', 'reflect')
    require('augment.border', augment.border in known, f'one of {known}')


def folders(config) -> tuple[str, ...]:
    """Names of the folders below a run directory that its parts are trained in."""
    if config.data.fold == ALL_FOLDS:
        return tuple(f'fold{fold}' for fold in range(config.data.num_folds))
    return tuple(config.stages)


def _rename(config: ml_collections.ConfigDict) -> None:
    """Gives keys that had another name before the name of today, in the stages' changes too."""
    for old, new in RENAMED.items():
        group, _, name = old.rpartition('.')
        holder = config.get(group) if group else config
        if holder is not None and name in holder:
            holder[new.rpartition('.')[2]] = holder[name]
            del holder[name]
    for stage in config.get('stages', {}).values():
        _rename(stage)


def upgrade(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Adds the keys that a run made before them lacks; what such a run did is what they say."""
    _rename(config)
    for key, value in ADDED.items():
        group, _, name = key.rpartition('.')
        if group in config and name not in config[group]:  # a converted network has few groups
            config[group][name] = value
    return config


def to_json(config: ml_collections.ConfigDict) -> str:
    """The resolved configuration as JSON text (references replaced by their values)."""
    return json.dumps(config.copy_and_resolve_references().to_dict(), indent=2) + '\n'


def from_json(text: str) -> ml_collections.ConfigDict:
    """The inverse of `to_json`. JSON knows no tuples: every list becomes one again.

    Raises:
      ValueError: the text is not a JSON object.
    """

    def restore(value):
        if isinstance(value, dict):
            return {k: restore(v) for k, v in value.items()}
        if isinstance(value, list):
            return tuple(restore(v) for v in value)
        return value

    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError('not a JSON object')
    return ml_collections.ConfigDict(restore(values))


def flatten(config, prefix: str = '') -> dict[str, Any]:
    """Dotted keys and values of all leaves."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            flat.update(flatten(value, f'{prefix}{key}.'))
        else:
            flat[prefix + key] = value
    return flat


def differences(old: ml_collections.ConfigDict, new: ml_collections.ConfigDict) -> list[str]:
    """One 'key: old -> new' for every key whose difference would make it another run."""
    before, after = flatten(from_json(to_json(old))), flatten(from_json(to_json(new)))
    return [
        f'{key}: {before.get(key)!r} -> {after.get(key)!r}'
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key not in FREE_KEYS
    ]
