"""How batches get to the device: streamed one by one, or looked up in a data set that is there.

Both give the same bits to the training step.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from pneumojax.data.cache.records import Records
from pneumojax.errors import UsageError
from pneumojax.system.devices import Devices
from pneumojax.system.progress import log

MEMORY_SHARE = 0.5  # of a device, that images may take: weights and activations need the rest


def make_feed(config, devices: Devices, records: Records) -> 'Streamed | Resident':
    """What `config.data.on_device` asks for. UsageError where the images do not fit."""
    return Resident(devices, records) if config.data.on_device else Streamed(devices, records)


class Streamed:
    """The host reads every batch.

    Attributes:
      records: what `pipeline` is to read from.
    """

    def __init__(self, devices: Devices, records: Records):
        self.records, self.place = records, devices.shard


class Resident:
    """Every device holds all records as they are stored, uint8; the host only says which.

    Attributes:
      records: None: `pipeline` gives indices, no images.
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

    def place(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch of `pipeline`, without image and mask -> the whole batch on the devices."""
        return self.look_up(self.stored, self.devices.shard(batch))


def make_look_up(size: int) -> Callable[[Any, dict[str, Any]], dict[str, Any]]:
    """Builds `look_up(stored, batch) -> batch`, a pure function: `shards.decode` on the device.

    Args:
      size: S of the stored images, pixels.

    Returns:
      A function of stored, uint8 [N, bytes of a record], and a batch with example int32 [B], that
      adds image, uint8 [B, S, S], and mask, uint8 [B, S, S] of 0 and 1.
    """
    pixels = size * size

    def look_up(stored, batch):
        rows = jnp.take(stored, batch['example'], axis=0, mode='clip')
        mask = jnp.unpackbits(rows[:, pixels:], axis=1, count=pixels)
        shape = (-1, size, size)
        return {**batch, 'image': rows[:, :pixels].reshape(shape), 'mask': mask.reshape(shape)}

    return look_up
