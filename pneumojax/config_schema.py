"""What every config key may be: one row per key of `configs/base.py`, then rules that join keys."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections

# Explained in models/normalize.py.
NORMALIZATIONS = ('unit', 'symmetric', 'imagenet', 'imagenet_grey')
ENCODERS = ('resnet34', 'efficientnet_lite0')


class Key(NamedTuple):
    """One config key."""

    allows: Callable[[Any], bool]  # takes a value of any type and never raises
    expected: str  # completes the message "expected ..."
    free: bool = False  # says where or how fast, not what: may change when a run is continued
    absent: Any = None  # what an older run did that has no such key; None: every run has it


class Rule(NamedTuple):
    """A condition on several keys, checked once each of them is valid by itself."""

    key: str  # the key that the message names
    holds: Callable[[ml_collections.ConfigDict], bool]
    expected: str  # completes the message "expected ..."; {c} is the config


def whole(low: int, high: int, note: str = '', **more: Any) -> Key:
    """A whole number. `high` limits the memory or time that a damaged config can ask for."""
    words = f'a whole number from {low} to {high}' + (f' ({note})' if note else '')
    return Key(lambda v: type(v) is int and low <= v <= high, words, **more)


def number(condition: Callable[[float], bool], expected: str) -> Key:
    """A finite number that meets a condition. A condition made of comparisons is false for NaN."""
    return Key(
        lambda v: (
            isinstance(v, int | float)
            and not isinstance(v, bool)
            and -_HUGE < v < _HUGE
            and condition(v)
        ),
        f'a number {expected}',
    )


def choice(*values: str, **more: Any) -> Key:
    """One of a few words."""
    words = ', '.join(map(repr, values[:-1])) + f' or {values[-1]!r}'
    return Key(lambda v: isinstance(v, str) and v in values, words, **more)


def boolean(**more: Any) -> Key:
    """True or False."""
    return Key(lambda v: isinstance(v, bool), 'True or False', **more)


def text(expected: str, pattern: str = '.*', **more: Any) -> Key:
    """Text that matches a regular expression as a whole."""
    match = re.compile(pattern, re.DOTALL).fullmatch
    return Key(lambda v: isinstance(v, str) and match(v) is not None, expected, **more)


def tuple_of(each: Key, expected: str, *, length: int | None = None) -> Key:
    """A tuple whose values are all allowed by `each`."""
    return Key(
        lambda v: (
            isinstance(v, tuple) and length in (None, len(v)) and all(each.allows(x) for x in v)
        ),
        expected,
    )


_HUGE = 1e12  # no setting is near it; infinity is not below it
_FROM_0 = number(lambda v: v >= 0, 'of at least 0')
_FROM_0_TO_1 = number(lambda v: 0 <= v <= 1, 'from 0 to 1')
_FROM_0_BELOW_1 = number(lambda v: 0 <= v < 1, 'of at least 0 and below 1')
_ABOVE_0 = number(lambda v: v > 0, 'above 0')
_ABOVE_0_TO_1 = number(lambda v: 0 < v <= 1, 'above 0 and at most 1')
_PATH = text('a path as text', free=True)

KEYS: dict[str, Key] = {
    'name': text('a name without slashes and without a dot in front', r'[^./\\\0][^/\\\0]*'),
    'seed': whole(0, 2**32),
    'image_size': whole(16, 4096, 'pixels'),
    'batch_size': whole(1, 2**16),
    'num_epochs': whole(1, 10**6),
    'init_from': text('a run directory as text'),
    'init_weights': choice('average', 'last'),
    'log_every_steps': whole(1, 10**9, free=True),
    'data.root': _PATH,
    'data.masks': _PATH._replace(absent=''),
    'data.table': _PATH._replace(absent=''),
    'data.patients': _PATH,
    'data.cache': _PATH,
    'data.fold': whole(-1, 999, '-1: every fold'),
    'data.num_folds': whole(2, 1000),
    'data.split_seed': whole(0, 2**32),
    'data.num_examples': whole(0, 10**9, '0: all'),
    'data.workers': whole(0, 1000, '0: threads of this process', free=True),
    'data.on_device': boolean(free=True, absent=False),
    'data.phantoms.num_images': whole(0, 10**7, '0: draw none'),
    'data.phantoms.size': whole(0, 8192, 'pixels'),
    'data.phantoms.seed': whole(0, 2**32),
    'data.phantoms.positive_share': number(lambda v: v == v, 'from 0 to 1'),
    'model.encoder': choice(*ENCODERS, absent='resnet34'),
    'model.pretrained': text('a name or path as text'),
    'model.frozen_stages': whole(0, 5, absent=0),
    'model.channels': Key(lambda v: type(v) is int and v in (1, 3), '1 or 3'),
    'model.normalization': choice(*NORMALIZATIONS),
    'model.width': whole(4, 1024),
    'model.stage_sizes': tuple_of(
        whole(1, 100), 'four numbers of blocks, each from 1 to 100', length=4
    ),
    'model.dtype': choice('float32', 'bfloat16', 'float64'),
    'model.frozen_batch_norm': boolean(absent=False),
    'model.classification_head': choice('none', 'auxiliary', 'gate', absent='none'),
    'optimizer.name': choice('sgd', 'adam', 'adamw'),
    'optimizer.learning_rate': _ABOVE_0,
    'optimizer.final_learning_rate': _FROM_0,
    'optimizer.warmup_epochs': _FROM_0,
    'optimizer.momentum': _FROM_0_BELOW_1,
    'optimizer.weight_decay': _FROM_0,
    'optimizer.clip_norm': _FROM_0,
    'optimizer.accumulate': whole(1, 10**6),
    'optimizer.freeze_encoder_epochs': _FROM_0,
    'loss.bce': _FROM_0,
    'loss.dice': _FROM_0,
    'loss.dice_reduction': choice('batch', 'image', absent='batch'),
    'loss.smooth': _FROM_0,
    'loss.focal': _FROM_0._replace(absent=0.0),
    'loss.focal_gamma': _FROM_0._replace(absent=2.0),
    'loss.classification': _FROM_0._replace(absent=0.0),
    'loss.restoration': _FROM_0._replace(absent=0.0),
    'augment.flip': _FROM_0_TO_1,
    'augment.vertical_flip': _FROM_0_TO_1,
    'augment.intensity': _FROM_0_TO_1,
    'augment.contrast': _FROM_0_BELOW_1,
    'augment.gamma': tuple_of(_ABOVE_0, '(low, high) in per cent, both above 0', length=2),
    'augment.brightness': _FROM_0_BELOW_1,
    'augment.warp': _FROM_0_TO_1,
    'augment.elastic_alpha': _FROM_0,
    # The smoothing matrix is made of 8 sigma numbers a pixel.
    'augment.elastic_sigma': number(lambda v: 0 <= v <= 1000, 'from 0 to 1000'),
    'augment.elastic_affine': _FROM_0,
    'augment.grid_steps': whole(1, 4096),
    'augment.grid_distort': _FROM_0_BELOW_1,
    'augment.optical_distort': _FROM_0,
    'augment.optical_shift': _FROM_0,
    'augment.affine': _FROM_0_TO_1,
    'augment.shift': _FROM_0,
    'augment.scale': _FROM_0_BELOW_1,
    'augment.rotate': _FROM_0,
    'augment.border': choice('constant', 'reflect'),
    'augment.crop': _FROM_0_TO_1,
    'augment.crop_min': _ABOVE_0_TO_1,
    'augment.window': whole(0, 4096, 'pixels; 0: whole images', absent=0),
    'augment.window_on_lesion': _FROM_0_TO_1._replace(absent=0.0),
    'augment.hide': _FROM_0_BELOW_1._replace(absent=0.0),
    'augment.hide_blocks': whole(2, 4096, absent=32),
    'sampling.positive_share': tuple_of(_ABOVE_0_TO_1, 'a tuple of shares above 0 and at most 1'),
    'averaging.kind': choice('none', 'mean', 'ema'),
    'averaging.start': whole(-(10**6), 10**6, 'epochs'),
    'averaging.every_steps': whole(0, 10**9, '0: once per epoch'),
    'averaging.decay': number(lambda v: 0 < v < 1, 'above 0 and below 1'),
    'averaging.bn_examples': whole(-1, 10**9, "0: all; -1: use the last weights' statistics"),
    'tta.flips': tuple_of(
        choice('horizontal', 'vertical'), "a tuple of 'horizontal' and 'vertical', or ()"
    ),
    'evaluation.batch_size': whole(1, 2**16, free=True),
    'evaluation.every_epochs': whole(0, 10**6, '0: never'),
    'evaluation.pictures': whole(0, 64, '0: none', free=True, absent=4),
    'evaluation.weights': choice('average', 'last'),
    'evaluation.rule': choice('single', 'triplet', 'half', 'risk'),
    'evaluation.miss': number(lambda v: 0 < v < 1, 'above 0 and below 1')._replace(absent=0.1),
    'evaluation.groups': _PATH._replace(absent=''),
    'evaluation.regions': boolean(absent=False),
    'evaluation.compare': boolean(),
    'evaluation.ablation_seeds': whole(1, 10**6, free=True, absent=3),
    'evaluation.bootstrap': whole(100, 10**6),
    'checkpoint.every_epochs': whole(1, 10**6),
    'checkpoint.keep': whole(1, 10**6, free=True),
    'stages': Key(
        lambda v: (
            isinstance(v, ml_collections.ConfigDict)
            and all(isinstance(changes, ml_collections.ConfigDict) for changes in v.values())
        ),
        'for each stage its name and the keys that it changes',
    ),
}

RULES = (
    Rule('data.fold', lambda c: c.data.fold < c.data.num_folds,
         'a fold below data.num_folds ({c.data.num_folds}), or -1 for every fold'),
    Rule('data.phantoms.size', lambda c: not c.data.phantoms.num_images
         or c.data.phantoms.size >= 32, 'at least 32 pixels'),
    Rule('data.phantoms.positive_share', lambda c: not c.data.phantoms.num_images
         or 0 <= c.data.phantoms.positive_share <= 1, 'a number from 0 to 1'),
    Rule('model.frozen_batch_norm', lambda c: not c.model.frozen_batch_norm
         or bool(c.model.pretrained or c.init_from or c.stages),
         'False for random weights, which have no statistics yet: set model.pretrained or '
         'init_from'),
    Rule('model.frozen_stages', lambda c: not c.model.frozen_stages
         or bool(c.model.pretrained or c.init_from or c.stages),
         '0 for random weights: set model.pretrained or init_from'),
    Rule('model.stage_sizes', lambda c: c.model.encoder == 'resnet34'
         or tuple(c.model.stage_sizes) == (3, 4, 6, 3),
         '(3, 4, 6, 3) unless model.encoder is a ResNet'),
    Rule('model.normalization', lambda c: c.model.encoder == 'resnet34'
         or c.model.pretrained != 'imagenet' or c.model.normalization == 'symmetric',
         "'symmetric', as the ImageNet weights of an EfficientNet-Lite0 were trained"),
    Rule('optimizer.warmup_epochs', lambda c: c.optimizer.warmup_epochs <= c.num_epochs,
         'at most num_epochs ({c.num_epochs})'),
    Rule('optimizer.freeze_encoder_epochs',
         lambda c: c.optimizer.freeze_encoder_epochs <= c.num_epochs,
         'at most num_epochs ({c.num_epochs})'),
    Rule('loss', lambda c: (max(c.loss.bce, c.loss.dice, c.loss.focal) > 0)
         != (c.loss.restoration > 0),
         'at least one of bce, dice and focal above 0, or restoration alone'),
    Rule('loss.restoration', lambda c: c.loss.restoration == 0 or c.data.fold >= 0,
         '0 with data.fold = -1: learning without labels has no score for each fold'),
    Rule('model.classification_head', lambda c: c.loss.restoration == 0
         or c.model.classification_head == 'none', "'none' with loss.restoration"),
    Rule('augment.hide', lambda c: (c.augment.hide > 0) == (c.loss.restoration > 0),
         'a share above 0 with loss.restoration, and 0 without it'),
    Rule('augment.hide_blocks', lambda c: c.augment.hide == 0
         or c.augment.hide_blocks <= (c.augment.window or c.image_size),
         'at most one block a pixel'),
    Rule('loss.classification',
         lambda c: (c.loss.classification > 0) == (c.model.classification_head != 'none'),
         'a number above 0 with a model.classification_head, and 0 without one'),
    Rule('augment.gamma', lambda c: c.augment.gamma[0] <= c.augment.gamma[1],
         '(low, high) in per cent, low at most high'),
    Rule('augment.window', lambda c: c.augment.window == 0
         or 16 <= c.augment.window <= c.image_size,
         '0 (whole images), or pixels from 16 to image_size ({c.image_size})'),
    Rule('averaging.start', lambda c: c.averaging.start < c.num_epochs,
         'an epoch before num_epochs ({c.num_epochs})'),
)  # fmt: skip
