"""BatchNorm recalibration: averaged weights need batch statistics of their own.

Those that came along with the last weights belong to another network. One pass over training images
gives the averaged network's, with equal weight for every batch (as PyTorch's `update_bn` does).
"""

from collections.abc import Iterable
from typing import Any

import jax
import ml_collections
import numpy as np

from pneumojax.system import processes
from pneumojax.system.devices import Devices
from pneumojax.system.progress import bar
from pneumojax.training.steps import Batch, BatchStatsStep


def choose_images(
    config: ml_collections.ConfigDict, train: np.ndarray, batch_size: int
) -> np.ndarray:
    """The training images to recalibrate on, in whole batches: padding would count some twice.

    Args:
      config: `averaging.bn_examples` (0: all) and `seed` are read.
      train: int [N], records of the training images.
      batch_size: images per batch. A data set smaller than one batch is repeated to fill it.

    Returns:
      int [a multiple of batch_size], records.
    """
    wanted = min(config.averaging.bn_examples or len(train), len(train))
    count = max(batch_size, wanted // batch_size * batch_size)
    shuffled = np.random.default_rng([config.seed, 2]).permutation(train)
    return np.resize(shuffled, count) if count > len(train) else shuffled[:count]


def update_batch_stats(
    batch_stats_step: BatchStatsStep,
    params: Any,
    batch_stats: Any,
    batches: Iterable[Batch],
    count: int,
    devices: Devices,
) -> Any:
    """The mean of the statistics of all batches.

    Args:
      batch_stats_step: compiled, see `steps.make_batch_stats_step`.
      params: the averaged weights, on the devices.
      batch_stats: for their shapes.
      batches: on the devices.
      count: how many there are.
      devices: that hold them.

    Returns:
      Statistics like `batch_stats`, as numpy arrays.
    """
    total = None
    for batch in bar(
        batches, 'recalibrating BatchNorm', count, unit='step', disable=not processes.is_main()
    ):
        new = batch_stats_step(params, batch_stats, batch)
        total = new if total is None else jax.tree.map(lambda a, b: a + b, total, new)
        jax.block_until_ready(total)
    return jax.tree.map(lambda s: (s / count).astype(s.dtype), devices.unreplicate(total))
