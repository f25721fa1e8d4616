"""How batches reach the devices: sent one by one, or looked up among images kept in their memory.

The training step gets the same bits either way.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, UInt8

from pneumojax.data.cache.records import Records
from pneumojax.errors import UsageError
from pneumojax.system.devices import Devices
from pneumojax.system.progress import log
from pneumojax.training.steps import Batch

MEMORY_SHARE = 0.5  # of a device, for images at most: weights and activations need the rest


def make_placement(
    config: ml_collections.ConfigDict, devices: Devices, records: Records
) -> 'FromHost | OnDevice':
    """What `config.data.on_device` asks for. UsageError where the images do not fit."""
    return (OnDevice if config.data.on_device else FromHost)(devices, records)


class FromHost:
    """The host reads every batch and sends it.

    Attributes:
      records: what `pipeline` is to read from.
    """

    def __init__(self, devices: Devices, records: Records):
        self.records, self.devices = records, devices

    def place(self, batch: Batch) -> Batch:
        """Sends a batch of images and masks, in the background."""
        return self.devices.shard(batch)


class OnDevice:
    """Every device holds all records as they are stored, uint8; the host only sends indices.

    Attributes:
      records: None, so that `pipeline` gives indices without images.
    """

    records = None

    def __init__(self, devices: Devices, records: Records):
        size, count = records.num_bytes, len(records)
        free = devices.memory()
        if free is not None and size > MEMORY_SHARE * free:
            raise UsageError(
                f'config.data.on_device: {count} images at {records.size} px take '
                f'{size / 2**30:.1f} GiB, more than {MEMORY_SHARE:.0%} of the '
                f'{free / 2**30:.1f} GiB of a device; leave it False'
            )
        log.info('%d images stay in device memory: %.2f GiB', count, size / 2**30)
        self.devices = devices
        self.stored = devices.replicate(records.everything())
        self.look_up = devices.compile(make_look_up(records.size), 'the look-up of images')

    def place(self, batch: Batch) -> Batch:
        """Sends a batch of indices, and looks its images and masks up there."""
        return self.look_up(self.stored, self.devices.shard(batch))


def make_look_up(size: int) -> Callable[[Any, Batch], Batch]:
    """Builds `look_up(stored, batch) -> batch`, a pure function: `shards.decode` on the device.

    Args:
      size: S of the stored images, pixels.

    Returns:
      A function of stored, uint8 [N, bytes of a record], and a batch with example int32 [B], that
      adds image, uint8 [B, S, S], and mask, uint8 [B, S, S] of 0 and 1.
    """
    pixels = size * size

    def look_up(stored: UInt8[Array, 'N bytes'], batch: Batch) -> Batch:
        # One slice a row, in place: XLA's gather first copies all of `stored` on a TPU.
        row = partial(jax.lax.dynamic_index_in_dim, stored, keepdims=False)
        rows = jax.lax.map(row, batch['example'])
        mask = jnp.unpackbits(rows[:, pixels:], axis=1, count=pixels)
        shape = (-1, size, size)
        return {**batch, 'image': rows[:, :pixels].reshape(shape), 'mask': mask.reshape(shape)}

    return look_up
