"""Every program that training and prediction compile, with abstract arguments."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from pneumojax.augment.augment import CHANCES, augment_batch
from pneumojax.data.sampling import Plan
from pneumojax.models import build, tta
from pneumojax.training import optimizer, placement, state, steps

PROGRAMS = {
    'train': 'a training step',
    'network': 'a training step without augmentation',
    'predict': 'probabilities, with the flips of config.tta',
    'evaluate': 'a validation step',
    'recalibrate': 'BatchNorm statistics of a batch',
    'augment': 'augmentation alone',
    'look_up': 'images of a batch out of 12,047 on the device',
}

NUM_STORED = 12_047  # SIIM's images


class Program(NamedTuple):
    """A pure function of arguments that every device has, and of a batch that they share."""

    function: Callable
    replicated: tuple[Any, ...]  # of jax.ShapeDtypeStruct, like the following
    batch: Any  # leaves [B, ...]
    donated: tuple[int, ...] = ()  # positions of arguments whose memory may be reused


def make_program(
    name: str, config: ml_collections.ConfigDict, axis_name: str | None = None
) -> Program:
    """One of `PROGRAMS`.

    Args:
      name: which one.
      config: of one run, without stages.
      axis_name: of the `pmap` that it will run in; None for one device.
    """
    size, batch_size = config.image_size, config.batch_size
    pixels = jax.ShapeDtypeStruct((batch_size, size, size), np.uint8)
    examples = jax.ShapeDtypeStruct((batch_size,), np.int32)
    batch = {'image': pixels, 'mask': pixels, 'example': examples}
    variables = build.variable_shapes(config)
    if name in ('train', 'network'):
        config = config.copy_and_resolve_references()
        if name == 'network':
            config.augment.update(dict.fromkeys(CHANCES, 0.0))
        tx = optimizer.make_optimizer(config, _plan(config))
        train_state = jax.eval_shape(lambda v: state.create_state(v, tx), variables)
        return Program(steps.make_train_step(config, tx, axis_name), (train_state,), batch, (0,))
    if name == 'predict':
        function = tta.make_predict(config, build.make_model(config), list(config.tta.flips))
        return Program(function, (variables,), pixels)
    if name == 'evaluate':
        valid = jax.ShapeDtypeStruct((batch_size,), np.bool_)
        function = steps.make_eval_step(config, axis_name)
        return Program(function, (variables,), {**batch, 'valid': valid})
    if name == 'recalibrate':
        function = steps.make_batch_stats_step(config, axis_name)
        return Program(function, (variables['params'], variables['batch_stats']), batch)
    if name == 'augment':
        return Program(_augmentation(config), (jax.ShapeDtypeStruct((), np.int32),), batch)
    record = size * size + -(-size * size // 8)  # the image, and the bits of its mask
    stored = jax.ShapeDtypeStruct((NUM_STORED, record), np.uint8)
    return Program(placement.make_look_up(size), (stored,), {'example': examples})


def _plan(config: ml_collections.ConfigDict) -> Plan:
    """100 batches an epoch: how many does not change what is compiled."""
    ends = 100 * np.arange(1, config.num_epochs + 1)
    return Plan(np.zeros(ends[-1] * config.batch_size, np.int32), ends, config.batch_size)


def _augmentation(config: ml_collections.ConfigDict) -> Callable:
    def augmentation(seed, batch):
        images, masks = steps.to_float(batch['image'], batch['mask'])
        key = jax.random.key(seed)
        return augment_batch(key, batch['example'], images, masks, config.augment)

    return augmentation


def product_flops(name: str, config: ml_collections.ConfigDict) -> float:
    """FLOPs that a batch needs in the program's convolutions, by their shapes alone.

    2 for each multiplication and addition; a training step has two gradients more for each
    convolution, and one for the first, whose input needs none. Products with the zeros that pad an
    image count, as a convolution over it has them too.

    Returns:
      The FLOPs of `config.batch_size` images; 0 where a program has no network.
    """
    if name in ('augment', 'look_up'):
        return 0.0
    size = config.image_size
    if name in ('train', 'network') and config.augment.window:
        size = config.augment.window
    stem, others = _forward_flops(config, size)
    factors = {'train': (2, 3), 'network': (2, 3), 'predict': (1 + len(config.tta.flips),) * 2}
    of_stem, of_others = factors.get(name, (1, 1))
    return config.batch_size * (of_stem * stem + of_others * others)


def _forward_flops(config: ml_collections.ConfigDict, size: int) -> tuple[float, float]:
    """Of the first convolution and of all others, for one image."""
    model = config.model
    width, height = model.width, -(-size // 2)
    stem = 2.0 * height**2 * 49 * model.channels * width
    total, heights, channels = 0.0, [height], [width]
    height = -(-height // 2)
    for stage, blocks in enumerate(model.stage_sizes):
        before, filters = channels[-1], width * 2**stage
        height = -(-height // 2) if stage else height
        inner = 2 * blocks - 1  # convolutions that keep the number of channels
        total += 2.0 * height**2 * 9 * filters * (before + inner * filters)
        if stage:
            total += 2.0 * height**2 * before * filters  # the projected shortcut
        heights.append(height)
        channels.append(filters)
    below = channels[-1]
    skips = [*zip(heights[-2::-1], channels[-2::-1], strict=True), (size, 0)]
    for share, (height, skip) in zip((4, 2, 1, 0.5, 0.25), skips, strict=True):
        filters = max(1, int(width * share))
        total += 2.0 * height**2 * 9 * filters * (below + skip + filters)
        below = filters
    return stem, total + 2.0 * size**2 * 9 * below
